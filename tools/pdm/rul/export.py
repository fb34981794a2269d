"""From a fitted model and its band to ONNX: input (1, history, columns), output (1, 3): remaining, lower, upper.

The trees are one operator on the newest row, the network runs on the history, and the band's curves are a sum of bends
(`Relu`). The conformal offset stays in the manifest, where the device adds it. INT8 quantises the network's convolutions
and matrices alone: trees compare numbers, there is nothing in them to multiply.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn

from tools.pdm.rul import trees
from tools.pdm.rul.crossval import Whole
from tools.pdm.rul.nets import Net

OPSET, ML_OPSET, IR = 17, 3, 9
INPUT, OUTPUT = "input", "remaining"
QUANTISED = ("Conv", "Gemm")


def export_fp32(whole: Whole, path: Path) -> None:
    fitted, cap = whole.fitted, whole.band.cap
    history, columns = fitted.view.history_rows, len(fitted.view.columns())
    nodes: list[Any] = []
    tensors: dict[str, NDArray[Any]] = {}
    parts = []
    if fitted.forests:
        tensors["newest_at"] = np.array(history - 1, np.int64)
        nodes.append(helper.make_node("Gather", [INPUT, "newest_at"], ["newest"], axis=1))
        attributes = trees.attributes(list(fitted.forests), 1.0 / len(fitted.forests))
        nodes.append(
            helper.make_node("TreeEnsembleRegressor", ["newest"], ["forest"], domain="ai.onnx.ml", **attributes)
        )
        parts.append("forest")
    for i, net in enumerate(fitted.nets):
        name = f"net{i}"
        more, theirs = _net_nodes(net, history, columns, name)
        nodes += more
        tensors |= theirs
        parts.append(f"{name}_life")
    if len(parts) == 2:
        share = fitted.recipe.net_share
        tensors |= {"share_0": np.array([1.0 - share], np.float32), "share_1": np.array([share], np.float32)}
        nodes += [helper.make_node("Mul", [part, f"share_{i}"], [f"shared_{i}"]) for i, part in enumerate(parts)]
        nodes.append(helper.make_node("Add", ["shared_0", "shared_1"], ["mixed"]))
        parts = ["mixed"]
    tensors |= {"least": np.array(0.0, np.float32), "most": np.array(cap, np.float32)}
    nodes.append(helper.make_node("Clip", [parts[0], "least", "most"], ["point"]))
    _add_curves(whole, nodes, tensors)
    nodes.append(helper.make_node("Concat", ["point", "ends"], [OUTPUT], axis=1))
    graph = helper.make_graph(
        nodes,
        "remaining-life",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, history, columns])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _add_curves(whole: Whole, nodes: list[Any], tensors: dict[str, NDArray[Any]]) -> None:
    """The straight pieces between the band's knots."""
    for name, values in zip(("start", "knots", "bends"), whole.band.bends(), strict=True):
        tensors[name] = values.astype(np.float32)
    nodes += [
        helper.make_node("Sub", ["point", "knots"], ["beyond"]),
        helper.make_node("Relu", ["beyond"], ["over"]),
        helper.make_node("MatMul", ["over", "bends"], ["bent"], name="curves"),
        helper.make_node("Add", ["bent", "start"], ["ends"]),
    ]


class _Scaled(nn.Module):
    """The network's answer in cycles."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.module, self.cap = net.module, net.cap

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x) * self.cap


def _net_nodes(net: Net, history: int, columns: int, name: str) -> tuple[list[Any], dict[str, NDArray[Any]]]:
    """The network's nodes and constants, every name with `name_` before it; its answer is `name_life`."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Scaled(net).eval(),
            (torch.zeros(1, history, columns),),
            buffer,
            input_names=[INPUT],
            output_names=["life"],
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load_from_string(buffer.getvalue()).graph
    for node in graph.node:
        node.name, node.doc_string = f"{name}_{node.name}", ""
        node.input[:] = [n if n in ("", INPUT) else f"{name}_{n}" for n in node.input]
        node.output[:] = [f"{name}_{n}" if n else "" for n in node.output]
    tensors = {f"{name}_{tensor.name}": numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return list(graph.node), tensors


def quantise_int8(fp32: Path, int8: Path, inputs: NDArray[np.float32]) -> None:
    """Static QDQ, uint8 activations and per-channel int8 weights; ranges from `inputs` (n, history, columns)."""

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows: Iterator[NDArray[np.float32]] = iter(inputs)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            row = next(self.rows, None)
            return None if row is None else {INPUT: np.ascontiguousarray(row[None])}

    logging.getLogger().setLevel(logging.ERROR)
    quantize_static(
        str(fp32),
        str(int8),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(QUANTISED),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
