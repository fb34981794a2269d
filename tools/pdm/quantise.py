"""INT8 of the autoencoders in a graph: their weights and activations, calibrated on training inputs. The rest (T², trees,
sums, logarithms) stays in floating point: it is small, and its range is wide."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from tools.pdm.graph import CONV, DENSE

CALIBRATION_INPUTS = 256


class _Inputs(CalibrationDataReader):
    def __init__(self, inputs: NDArray[np.float32]) -> None:
        self._left: Iterator[NDArray[np.float32]] = iter(inputs)

    def get_next(self) -> dict[str, Any] | None:
        x = next(self._left, None)
        return None if x is None else {"x": np.ascontiguousarray(x[None])}


def quantised(graph: bytes, inputs: NDArray[np.float32]) -> bytes | None:
    """The graph with INT8 autoencoders; None where it has none."""
    named = [
        node.name
        for node in onnx.load_model_from_string(graph).graph.node
        if node.op_type in ("MatMul", "Conv") and node.name.startswith((CONV, DENSE))
    ]
    if not named:
        return None
    chosen = inputs[:: max(1, len(inputs) // CALIBRATION_INPUTS)]
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime advises a step that these graphs do not need
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(graph)
        quantize_static(
            source,
            target,
            _Inputs(chosen),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Conv"],
            nodes_to_quantize=named,
        )
        return target.read_bytes()
