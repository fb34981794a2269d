"""A small `.tflite` model for tests: mean of 3 × 3, the brightest of it, one dense layer. Uses ai_edge_litert's schema."""

from __future__ import annotations

from typing import Any, Literal

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

SIDE = 32
IN_SCALE, IN_ZERO = 5.2 / 255, -30
WEIGHT_SCALE, OUT_SCALE, OUT_ZERO = 6.0 / 127, 0.1, 0
TYPES = {"float32": schema.TensorType.FLOAT32, "int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32}


def spot_model(kind: Literal["float32", "int8"]) -> bytes:
    """NHWC (1, 32, 32, 1) to (1, 2): the same judgement as `edge_runtime.tests.bundles.model(2, 0)`."""
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    weights, bias = np.array([[0.0], [6.0]], np.float32), np.array([0.0, -7.2], np.float32)
    if kind == "int8":
        weights = np.rint(weights / WEIGHT_SCALE).astype(np.int8)
        bias = np.rint(bias / (WEIGHT_SCALE * IN_SCALE)).astype(np.int32)
    activation = (IN_SCALE, IN_ZERO)
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor(model, (1, SIDE, SIDE, 1), kind, activation),
        _tensor(model, (1, SIDE, SIDE, 1), kind, activation),
        _tensor(model, (1, 1, 1, 1), kind, activation),
        _tensor(model, (2, 1), kind, (WEIGHT_SCALE, 0), weights),
        _tensor(model, (2,), "int32" if kind == "int8" else kind, (WEIGHT_SCALE * IN_SCALE, 0), bias),
        _tensor(model, (1, 2), kind, (OUT_SCALE, OUT_ZERO)),
    ]
    graph.inputs, graph.outputs = [0], [5]
    average, highest = schema.BuiltinOperator.AVERAGE_POOL_2D, schema.BuiltinOperator.MAX_POOL_2D
    dense = schema.BuiltinOperator.FULLY_CONNECTED
    graph.operators = [
        _operator(model, average, [0], [1], schema.BuiltinOptions.Pool2DOptions, _pool(3, schema.Padding.SAME)),
        _operator(model, highest, [1], [2], schema.BuiltinOptions.Pool2DOptions, _pool(SIDE, schema.Padding.VALID)),
        _operator(
            model, dense, [2, 3, 4], [5], schema.BuiltinOptions.FullyConnectedOptions, schema.FullyConnectedOptionsT()
        ),
    ]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(
    model: Any, shape: tuple[int, ...], kind: str, scale: tuple[float, int], values: NDArray[Any] | None = None
) -> Any:
    tensor = schema.TensorT()
    tensor.shape, tensor.type, tensor.buffer = list(shape), TYPES[kind], 0
    tensor.name = f"t{len(model.buffers)}"
    if kind != "float32":
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale[0]], [scale[1]]
    if values is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    return tensor


def _pool(size: int, padding: int) -> Any:
    options = schema.Pool2DOptionsT()
    options.padding, options.filterHeight, options.filterWidth, options.strideH, options.strideW = (
        padding,
        size,
        size,
        1,
        1,
    )
    return options


def _operator(model: Any, code: int, inputs: list[int], outputs: list[int], kind: int, options: Any) -> Any:
    entry = schema.OperatorCodeT()
    entry.builtinCode = entry.deprecatedBuiltinCode = code
    entry.version = 4 if code == schema.BuiltinOperator.FULLY_CONNECTED else 2
    model.operatorCodes = [*(model.operatorCodes or []), entry]
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = inputs, outputs
    operator.builtinOptionsType, operator.builtinOptions = kind, options
    return operator
