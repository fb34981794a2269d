"""A small writer of `.onnx` files, so that tests need no `onnx` package: protobuf fields of the public `onnx.proto`.

It is independent of `edge_runtime.infer.onnx_file`, and ONNX Runtime is its judge: a wrong file does not load.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ELEMENT = {"float32": 1, "uint8": 2, "int8": 3, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float64": 11}
IR_VERSION, OPSET = 8, 17

Attribute = float | int | str | Sequence[int] | Sequence[float] | NDArray[Any]


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def data(field: int, value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(raw)) + raw


def tensor(name: str, array: NDArray[Any], packing: str = "raw") -> bytes:
    """`packing`: ``raw`` bytes, ``typed`` packed lists (float_data, int32_data, int64_data) or ``loose`` unpacked."""
    head = b"".join(number(1, d) for d in array.shape) + number(2, ELEMENT[str(array.dtype)]) + data(8, name)
    if packing == "raw":
        return head + data(9, array.tobytes())
    if array.dtype == np.float32:
        if packing == "loose":
            return head + b"".join(varint(4 << 3 | 5) + struct.pack("<f", x) for x in array.ravel())
        return head + data(4, array.astype("<f4").tobytes())
    field = 7 if array.dtype == np.int64 else 5
    if packing == "loose":
        return head + b"".join(number(field, int(x)) for x in array.ravel())
    return head + data(field, b"".join(varint(int(x)) for x in array.ravel()))


def attribute(name: str, value: Attribute) -> bytes:
    head = data(1, name)
    if isinstance(value, float):
        return head + varint(2 << 3 | 5) + struct.pack("<f", value) + number(20, 1)
    if isinstance(value, int):
        return head + number(3, value) + number(20, 2)
    if isinstance(value, str):
        return head + data(4, value) + number(20, 3)
    if isinstance(value, np.ndarray):
        return head + data(5, tensor("", value)) + number(20, 4)
    if any(isinstance(x, float) for x in value):
        return head + data(7, struct.pack(f"<{len(value)}f", *value)) + number(20, 6)
    return head + b"".join(number(8, int(x)) for x in value) + number(20, 7)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Attribute) -> bytes:
    body = b"".join(data(1, i) for i in inputs) + b"".join(data(2, o) for o in outputs) + data(4, op)
    return body + b"".join(data(5, attribute(k, v)) for k, v in attributes.items())


def value_info(name: str, shape: Sequence[int | str] | None, element: str = "float32") -> bytes:
    """`shape` None: unknown; a text dimension is symbolic."""
    kind = number(1, ELEMENT[element])
    if shape is not None:
        dims = b"".join(data(1, data(2, d) if isinstance(d, str) else number(1, d)) for d in shape)
        kind += data(2, dims)
    return data(1, name) + data(2, data(1, kind))


def model(
    nodes: Sequence[bytes],
    initialisers: Mapping[str, NDArray[Any]],
    input_shape: Sequence[int | str],
    output_shape: Sequence[int | str] | None = None,
    packing: str = "raw",
    opset: int = OPSET,
) -> bytes:
    """A whole model with one float32 input `x` and one float32 output `y`."""
    graph = b"".join(data(1, n) for n in nodes) + data(2, "tiny")
    graph += b"".join(data(5, tensor(k, v, packing)) for k, v in initialisers.items())
    graph += data(11, value_info("x", input_shape)) + data(12, value_info("y", output_shape))
    return number(1, IR_VERSION) + data(2, "tiny_onnx") + data(7, graph) + data(8, data(1, "") + number(2, opset))
