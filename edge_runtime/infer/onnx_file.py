"""Read an `.onnx` file without the `onnx` package: a small reader of the protobuf wire format.

Field numbers are those of the public `onnx.proto` (ModelProto.graph = 7, GraphProto.node = 1, initializer = 5, …). Only
what a float or QDQ graph needs is kept: nodes, attributes, initialisers, the names of input and output.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import BundleError

DTYPES: dict[int, Any] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_, 11: np.float64,
}  # fmt: skip


@dataclass(frozen=True)
class Node:
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Graph:
    nodes: tuple[Node, ...]
    initialisers: dict[str, NDArray[Any]]
    input: str
    output: str
    input_shape: tuple[int | None, ...] | None = None


def read(path: Path) -> Graph:
    """The graph of an ONNX model; BundleError if the file is not one."""
    try:
        model = dict(_group(path.read_bytes()))
        return _graph(model[7][0])
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise BundleError(f"{path}: not an ONNX model that the reference engine can read: {error!r}") from error


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """(field number, wire type, value) of one protobuf message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, wire, value
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            yield number, wire, data[at : at + size]
            at += size
        elif wire == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("the file ends inside a field")
            yield number, wire, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {wire} is not used by ONNX")


def _group(data: bytes) -> dict[int, list[Any]]:
    out: dict[int, list[Any]] = {}
    for number, _, value in _fields(data):
        out.setdefault(number, []).append(value)
    return out


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint is longer than 64 bits")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _integers(values: list[Any]) -> list[int]:
    """Repeated int64: packed or one by one."""
    out: list[int] = []
    for value in values:
        if isinstance(value, int):
            out.append(_signed(value))
            continue
        at = 0
        while at < len(value):
            item, at = _varint(value, at)
            out.append(_signed(item))
    return out


def _floats(values: list[bytes]) -> list[float]:
    return [x for value in values for x in struct.unpack(f"<{len(value) // 4}f", value)]


def _text(values: list[bytes]) -> tuple[str, ...]:
    return tuple(v.decode() for v in values)


def _graph(data: bytes) -> Graph:
    g = _group(data)
    initialisers = dict(_tensor(t) for t in g.get(5, []))
    inputs = {_text(_group(v)[1])[0]: v for v in g.get(11, [])}
    free = [name for name in inputs if name not in initialisers]
    return Graph(
        nodes=tuple(_node(n) for n in g.get(1, [])),
        initialisers=initialisers,
        input=free[0],
        output=_text(_group(g[12][0])[1])[0],
        input_shape=_shape(inputs[free[0]]),
    )


def _shape(value_info: bytes) -> tuple[int | None, ...] | None:
    """The declared shape of a graph input: None for a symbolic dimension, and where none is declared."""
    tensor = _group(_group(_group(value_info)[2][0])[1][0])
    if 2 not in tensor:
        return None
    dims = [_group(d) for d in _group(tensor[2][0]).get(1, [])]
    return tuple(_signed(d[1][0]) if 1 in d else None for d in dims)


def _node(data: bytes) -> Node:
    n = _group(data)
    return Node(
        op=_text(n[4])[0],
        inputs=_text(n.get(1, [])),
        outputs=_text(n.get(2, [])),
        attributes=dict(_attribute(a) for a in n.get(5, [])),
    )


def _attribute(data: bytes) -> tuple[str, Any]:
    a = _group(data)
    name = _text(a[1])[0]
    kind = a.get(20, [0])[0]
    if kind == 1:
        return name, struct.unpack("<f", a[2][0])[0]
    if kind == 2:
        return name, _signed(a.get(3, [0])[0])
    if kind == 3:
        return name, a[4][0].decode()
    if kind == 4:
        return name, _tensor(a[5][0])[1]
    if kind == 6:
        return name, _floats(a.get(7, []))
    if kind == 7:
        return name, _integers(a.get(8, []))
    raise ValueError(f"attribute {name} has a type ({kind}) that the reference engine does not read")


def _tensor(data: bytes) -> tuple[str, NDArray[Any]]:
    t = _group(data)
    shape = _integers(t.get(1, []))
    dtype = DTYPES.get(t.get(2, [0])[0])
    if dtype is None:
        raise ValueError(f"tensor data type {t.get(2)} is not supported")
    name = _text(t.get(8, [b""]))[0]
    if 9 in t:
        flat = np.frombuffer(t[9][0], dtype=dtype)
    elif 4 in t:
        flat = np.array(_floats(t[4]), dtype=dtype)
    else:
        flat = np.array(_integers(t.get(5, []) + t.get(7, [])), dtype=dtype)
    return name, flat.reshape(shape)
