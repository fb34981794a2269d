"""ONNX Runtime behind the Engine seam: one thread, no spinning, so that the control loop owns its core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge_runtime.errors import BundleError

VERSION = str(ort.__version__)


class OnnxEngine:
    name = "onnxruntime"

    def __init__(self, path: Path, variant: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's own exception types are not stable
            raise BundleError(f"{path}: ONNX Runtime {VERSION} cannot load it: {_first_line(error)}") from error
        self.variant = variant
        self._input = self._session.get_inputs()[0].name
        self._output = [self._session.get_outputs()[0].name]
        self._shape = tuple(self._session.get_inputs()[0].shape)

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            return np.asarray(self._session.run(self._output, {self._input: x})[0][0])
        except Exception as error:
            found = f"input {x.dtype} {x.shape}, expected float32 {self._shape}"
            raise BundleError(f"variant {self.variant}: {found}: {_first_line(error)}") from error

    def close(self) -> None:
        del self._session


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
