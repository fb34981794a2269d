"""A reader of Sparkplug B payloads written from the protobuf wire format alone: no protobuf package, no schema, nothing of ours.

Field numbers and types as in section 6.4 of the Sparkplug 3.0 specification."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
SIGNED_BITS = {1: 8, 2: 16, 3: 32, 4: 64}


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """(field number, wire type, raw value) of one message."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        raw: Any
        if kind == VARINT:
            raw, at = varint(data, at)
        elif kind == BYTES:
            size, at = varint(data, at)
            assert at + size <= len(data), "a field reaches beyond its message"
            raw, at = data[at : at + size], at + size
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
            raw, at = data[at : at + size], at + size
        else:
            raise AssertionError(f"wire type {kind}")
        yield number, kind, raw


def read_payload(data: bytes) -> dict[str, Any]:
    out: dict[str, Any] = {"metrics": []}
    for number, kind, raw in fields(data):
        if number == 1 and kind == VARINT:
            out["timestamp"] = raw
        elif number == 2 and kind == BYTES:
            out["metrics"].append(read_metric(raw))
        elif number == 3 and kind == VARINT:
            out["seq"] = raw
        else:
            raise AssertionError(f"unexpected field {number} of wire type {kind}")
    return out


def read_metric(data: bytes) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for number, kind, raw in fields(data):
        if number == 1 and kind == BYTES:
            out["name"] = raw.decode()
        elif number in (2, 3, 4) and kind == VARINT:
            out[{2: "alias", 3: "timestamp", 4: "datatype"}[number]] = raw
        elif number in (5, 7) and kind == VARINT:
            out[{5: "is_historical", 7: "is_null"}[number]] = bool(raw)
        elif number in (10, 11) and kind == VARINT:
            out["field"], out["value"] = number, raw
        elif number == 13 and kind == FIXED64:
            out["field"], out["value"] = number, struct.unpack("<d", raw)[0]
        elif number == 14 and kind == VARINT:
            out["field"], out["value"] = number, bool(raw)
        elif number == 15 and kind == BYTES:
            out["field"], out["value"] = number, raw.decode()
        else:
            raise AssertionError(f"unexpected metric field {number} of wire type {kind}")
    return out


#: datatype → the field that its value is in
FIELD_OF = {4: 11, 10: 13, 11: 14, 12: 15}


def value_of(metric: dict[str, Any], datatype: int) -> Any:
    """The value as its datatype reads; AssertionError where it is in the wrong field."""
    if metric.get("is_null"):
        assert "value" not in metric, "null and a value"
        return None
    assert metric["field"] == FIELD_OF[datatype], f"{metric} is not of datatype {datatype}"
    value, bits = metric["value"], SIGNED_BITS.get(datatype, 0)
    return value - (1 << bits) if bits and value >= 1 << (bits - 1) else value


def put_varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def put(number: int, kind: int, value: bytes | int) -> bytes:
    key = put_varint(number << 3 | kind)
    if isinstance(value, int):
        return key + put_varint(value)
    return key + (put_varint(len(value)) if kind == BYTES else b"") + value


def command(
    name: str | None = None, value: bool | int | str = True, alias: int | None = None, timestamp: int = 7
) -> bytes:
    """The payload of an NCMD or DCMD with one metric."""
    metric = (put(1, BYTES, name.encode()) if name is not None else b"") + put(3, VARINT, timestamp)
    metric += put(2, VARINT, alias) if alias is not None else b""
    if isinstance(value, bool):
        metric += put(4, VARINT, 11) + put(14, VARINT, int(value))
    elif isinstance(value, int):
        metric += put(4, VARINT, 4) + put(11, VARINT, value & (1 << 64) - 1)
    else:
        metric += put(4, VARINT, 12) + put(15, BYTES, value.encode())
    return put(1, VARINT, timestamp) + put(2, BYTES, metric)
