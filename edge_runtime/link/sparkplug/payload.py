"""Payloads of Sparkplug B, encoded and decoded. The only file that touches protobuf, and only when it is first used.

- A birth names each metric and gives its alias and datatype; a data message has the alias alone.
- A missing value is `is_null`, never 0.
- Whatever is wrong with a payload that is read is one ValueError.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from edge_runtime.errors import MissingExtraError

Value = bool | int | float | str | None
COMMAND_LIMIT_BYTES = 64 * 1024
COMMAND_METRICS = 100


class DataType(IntEnum):
    """The datatypes that we send."""

    INT64 = 4
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12


class Metric(NamedTuple):
    """`name` None: a data message, which names by alias. `datatype` 0: not told."""

    name: str | None
    alias: int | None
    datatype: int
    value: Value
    timestamp_ms: int
    historical: bool = False


class Payload(NamedTuple):
    metrics: Sequence[Metric]
    timestamp_ms: int
    seq: int | None


#: datatype → (field of the message, width in bits of a signed integer or 0)
FIELDS: dict[int, tuple[str, int]] = {
    1: ("int_value", 8), 2: ("int_value", 16), 3: ("int_value", 32), 4: ("long_value", 64),
    5: ("int_value", 0), 6: ("int_value", 0), 7: ("int_value", 0), 8: ("long_value", 0),
    9: ("float_value", 0), 10: ("double_value", 0), 11: ("boolean_value", 0), 12: ("string_value", 0),
    13: ("long_value", 0), 14: ("string_value", 0), 15: ("string_value", 0),
}  # fmt: skip
_READ = ("int_value", "long_value", "float_value", "double_value", "boolean_value", "string_value")


def generated() -> Any:
    """The generated module; MissingExtraError where protobuf is missing or too old for it."""
    try:
        from edge_runtime.link.sparkplug import sparkplug_b_pb2
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            'link.protocol = "sparkplug" needs the Python package protobuf, which is not installed; '
            "install it with: pip install 'gudgeon[sparkplug]'"
        ) from error
    except Exception as error:  # protobuf's VersionError is its own kind of Exception
        raise MissingExtraError(
            f"the installed protobuf does not fit: {error}; install it with: pip install 'gudgeon[sparkplug]'"
        ) from error
    return sparkplug_b_pb2


def encode(metrics: Iterable[Metric], timestamp_ms: int, seq: int | None) -> bytes:
    payload = generated().Payload(timestamp=max(0, timestamp_ms))
    for metric in metrics:
        _write(payload.metrics.add(), metric)
    if seq is not None:
        payload.seq = seq
    return bytes(payload.SerializeToString())


def _write(out: Any, metric: Metric) -> None:
    if metric.name is not None:
        out.name, out.datatype = metric.name, metric.datatype
    if metric.alias is not None:
        out.alias = metric.alias
    out.timestamp = max(0, metric.timestamp_ms)
    if metric.historical:
        out.is_historical = True
    if metric.value is None:
        out.is_null = True
        return
    field, bits = FIELDS[metric.datatype]
    value = metric.value
    setattr(out, field, value & (1 << bits) - 1 if bits and isinstance(value, int) else value)


def decode(data: bytes, limit_bytes: int = COMMAND_LIMIT_BYTES, limit_metrics: int = COMMAND_METRICS) -> Payload:
    """Read what a host sent; ValueError says what is wrong with it."""
    if len(data) > limit_bytes:
        raise ValueError(f"Sparkplug payload of {len(data)} bytes is over the limit of {limit_bytes}")
    read = generated().Payload()
    try:
        read.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError is its own kind of Exception
        raise ValueError(f"not a Sparkplug B payload: {error}") from error
    if len(read.metrics) > limit_metrics:
        raise ValueError(f"Sparkplug payload with {len(read.metrics)} metrics is over the limit of {limit_metrics}")
    metrics = [_read(m, read.timestamp) for m in read.metrics]
    return Payload(metrics, read.timestamp, read.seq if read.HasField("seq") else None)


def _read(m: Any, timestamp_ms: int) -> Metric:
    name = m.name if m.HasField("name") else None
    alias = m.alias if m.HasField("alias") else None
    field = m.WhichOneof("value")
    value: Value = getattr(m, field) if field in _READ and not m.is_null else None
    if isinstance(name, bytes) or isinstance(value, bytes):  # what protobuf gives for a string that is not UTF-8
        raise ValueError("Sparkplug payload with a string that is not UTF-8")
    value = as_signed(value, m.datatype)
    return Metric(name, alias, m.datatype, value, m.timestamp or timestamp_ms, m.is_historical)


def as_signed(value: Value, datatype: int) -> Value:
    """Signed integers cross the wire as unsigned ones of their width."""
    bits = FIELDS.get(datatype, ("", 0))[1]
    return value - (1 << bits) if bits and type(value) is int and value >= 1 << (bits - 1) else value
