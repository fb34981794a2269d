"""From the trained network to files: FP32 ONNX with batch normalisation folded in, and static INT8 from it.

INT8 is QDQ with uint8 activations and per-channel int8 weights: on x86 signed activations ran about three times slower at
the same accuracy. The ranges come from training inputs.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from torch import nn

OPSET = 17
INPUT, OUTPUT = "input", "logits"


def export_fp32(net: nn.Module, height: int, width: int, path: Path) -> None:
    """Write `net` for batches of one (1, 1, height, width) with short names and folded constants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval().to(memory_format=torch.contiguous_format),
            (torch.zeros(1, 1, height, width),),
            str(path),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamo=False,
        )
    _compact(path)


def _compact(path: Path) -> None:
    """Rewrite the file with zero points shared and short names; the graph stays what it is."""
    model = onnx.load(str(path))
    _share_constants(model.graph)
    _shorten(model.graph)
    onnx.save(model, str(path))


def _share_constants(graph: Any) -> None:
    """Keep one of the all-zero constants of each shape: a quantised file has hundreds of zero points."""
    first: dict[tuple[int, tuple[int, ...]], str] = {}
    instead: dict[str, str] = {}
    for initialiser in list(graph.initializer):
        if onnx.numpy_helper.to_array(initialiser).any():
            continue
        name = first.setdefault((initialiser.data_type, tuple(initialiser.dims)), initialiser.name)
        if name != initialiser.name:
            instead[initialiser.name] = name
            graph.initializer.remove(initialiser)
    for node in graph.node:
        node.input[:] = [instead.get(name, name) for name in node.input]


def _shorten(graph: Any) -> None:
    """Number the tensors and drop the source lines' names: quantising repeats them for every scale and zero point."""
    keep = {INPUT, OUTPUT}
    names: dict[str, str] = {}

    def short(name: str) -> str:
        return name if not name or name in keep else names.setdefault(name, f"t{len(names)}")

    for initialiser in graph.initializer:
        initialiser.name = short(initialiser.name)
    for number, node in enumerate(graph.node):
        node.name, node.doc_string = f"n{number}", ""
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    del graph.value_info[:]


class _Reader(CalibrationDataReader):
    def __init__(self, inputs: NDArray[np.float32]) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        x = next(self._inputs, None)
        return None if x is None else {INPUT: x[None]}


def _decision(graph: Any) -> list[str]:
    """The nodes from the defect maps on: few operations on few values, whose error would go straight into the answer."""
    maps = {name for node in graph.node if node.op_type == "ReduceMax" for name in node.input}
    names, reached = [], set(maps)
    for node in graph.node:
        if maps.intersection(node.output) or reached.intersection(node.input):
            names.append(node.name)
            reached.update(node.output)
    return names


def quantise_int8(fp32: Path, int8: Path, inputs: NDArray[np.float32]) -> None:
    """Static INT8 of `fp32` up to the defect maps; `inputs` (n, 1, h, w) set the ranges, averaged over them."""
    logging.getLogger().setLevel(logging.ERROR)
    ort.set_default_logger_severity(3)
    quantize_static(
        str(fp32),
        str(int8),
        _Reader(inputs),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        nodes_to_exclude=_decision(onnx.load(str(fp32)).graph),
        extra_options={"CalibMovingAverage": True},
    )
    _compact(int8)


def run_onnx(path: Path, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (n, classes) of pre-processed inputs, one by one, as the device runs them."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([np.asarray(session.run([OUTPUT], {INPUT: x[None]})[0]) for x in inputs])
