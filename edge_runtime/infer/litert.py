"""LiteRT (the living successor of tflite-runtime) behind the Engine seam; imported only for a `.tflite` variant."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import BundleError, MissingExtraError


def _interpreter_class() -> tuple[Any, str]:
    try:
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter, str(ai_edge_litert.__version__)
    except ImportError:
        pass
    try:
        import tflite_runtime
        from tflite_runtime.interpreter import Interpreter

        return Interpreter, str(tflite_runtime.__version__)
    except ImportError as error:
        raise MissingExtraError("LiteRT is not installed; install it with: pip install ai-edge-litert") from error


def version() -> str:
    """The installed runtime's version; MissingExtraError if there is none."""
    return _interpreter_class()[1]


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """The library writes notes about itself to the process's standard error, past every logger; errors come as exceptions."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class LiteRtEngine:
    """Takes float32 (1, c, h, w) like the other engines; layout and INT8 input or output scales are handled here."""

    name = "litert"

    def __init__(self, path: Path, variant: str) -> None:
        interpreter, _ = _interpreter_class()
        try:
            with _quiet_stderr():
                self._interpreter = interpreter(model_path=str(path), num_threads=1)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"{path}: LiteRT cannot load it: {str(error).splitlines()[0][:200]}") from error
        self.variant = variant
        self._in = self._interpreter.get_input_details()[0]
        self._out = self._interpreter.get_output_details()[0]

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        shape = tuple(self._in["shape"])
        if x.shape != shape:
            if x.ndim != 4 or (x.shape[0], x.shape[2], x.shape[3], x.shape[1]) != shape:
                raise BundleError(f"variant {self.variant}: input {x.shape}, expected {shape} (or its NCHW form)")
            x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x.shape[1] > 1 else x.reshape(shape)
        if self._in["dtype"] != np.float32:
            scale, zero = self._in["quantization"]
            info = np.iinfo(self._in["dtype"])
            x = np.clip(np.rint(x / scale) + zero, info.min, info.max).astype(self._in["dtype"])
        self._interpreter.set_tensor(self._in["index"], x)
        self._interpreter.invoke()
        y = self._interpreter.get_tensor(self._out["index"])[0]
        if self._out["dtype"] != np.float32:
            scale, zero = self._out["quantization"]
            y = (y.astype(np.float32) - zero) * scale
        return np.asarray(y, dtype=np.float32)

    def close(self) -> None:
        del self._interpreter
