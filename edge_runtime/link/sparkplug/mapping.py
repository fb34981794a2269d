"""Events as metrics. Pure.

    <first part>/<kind>/<field>[/<field>…]      the kind is left out where it is the stream's own name

- Every field of an Event's body is one metric, nested objects are taken apart, lists become JSON text.
- Every Event also carries `…/seq`, its number in its stream: a host can count that none is missing.
- Every metric of an Event has the Event's own time.
- Names and datatypes that are known beforehand are in `FIELDS`; others are learnt when they first come, and a birth tells
  them. A datatype only ever widens: Int64 to Double, anything else to String.
- There are at most `limit` metrics. What finds no place goes as JSON into the one metric `Other` of its owner.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from edge_runtime.link.sparkplug.payload import DataType, Metric, Value
from edge_runtime.wire.envelope import STREAMS, Event

DEPTH = 4
NAME_LIMIT = 200
KEPT_TEXT_BYTES = 1024  # of a value that births repeat
INT64 = range(-(2**63), 2**63)
OTHER = "Other"
SEQ = "seq"
UNFIT = re.compile(r"[^A-Za-z0-9 _-]")


class Owner(Enum):
    NODE = "node"
    LINE = "line"


#: stream → whose metrics its Events become, and the first part of their names
OWNERS: Mapping[str, tuple[Owner, str]] = {
    "alarm": (Owner.NODE, "Alarm"),
    "fault": (Owner.NODE, "Fault"),
    "command": (Owner.NODE, "Command"),
    "health": (Owner.NODE, "Health"),
    "link": (Owner.NODE, "Link"),
    "metric": (Owner.NODE, "Metric"),
    "decision": (Owner.LINE, "Decision"),
    "telemetry": (Owner.LINE, "Telemetry"),
    "review": (Owner.LINE, "Review"),
}

_I, _D, _S = DataType.INT64, DataType.DOUBLE, DataType.STRING

#: (stream, kind) → field → datatype: told in the first birth, before any such Event has come
FIELDS: Mapping[tuple[str, str], Mapping[str, DataType]] = {
    ("decision", "decision"): {
        "part_seq": _I, "part_epoch": _I, "result": _I, "score": _D, "label": _S, "reason": _S, "bundle_digest": _S, "engine": _S,
        "variant": _S, "frame_timestamp_ns": _I, "latency_us": _I, "lot": _I, "serial": _I, "recipe": _I,
    },
    ("decision", "unrecorded"): {
        "part_seq": _I, "part_epoch": _I, "result": _I, "score": _D, "reason": _S, "lot": _I, "serial": _I,
    },
    ("health", "health"): {"health": _S, "conditions": _S},
    ("health", "plc_connected"): {"part_seq": _I},
    ("health", "model_loaded"): {"slot_set": _S, "bundle_digest": _S, "engine": _S, "variant": _S},
    ("fault", "plc_lost"): {"reason": _S},
    ("fault", "camera_lost"): {"reason": _S},
    ("metric", "control"): {
        "answered": _I, "pass": _I, "reject": _I, "review": _I, "fault": _I, "health": _S, "line_state": _I, "recipe": _I,
        "outbox_depth": _I, "records_waiting": _I, "records_lost": _I,
    },
}  # fmt: skip


BD_SEQ = "bdSeq"
REBIRTH = "Node Control/Rebirth"
DEPTH_METRIC = "Outbox/depth"
SHED_METRIC = "Outbox/shed/{}"

#: metrics of the node that no Event carries
NODE_METRICS: Mapping[str, DataType] = {
    BD_SEQ: _I,
    REBIRTH: DataType.BOOLEAN,
    "Properties/software": _S,
    "Properties/version": _S,
    "Properties/boot_id": _S,
    "Properties/chain": _S,
    DEPTH_METRIC: _I,
    **{SHED_METRIC.format(stream): _I for stream in STREAMS},
}


class Field(NamedTuple):
    name: str
    value: Value


def known_metrics() -> Iterator[tuple[Owner, str, DataType]]:
    """What is told in every birth from the beginning."""
    for name, datatype in NODE_METRICS.items():
        yield Owner.NODE, name, datatype
    for owner in Owner:
        yield owner, OTHER, _S
    for (stream, kind), types in FIELDS.items():
        base = base_name(stream, kind)
        for name, datatype in {SEQ: _I, **types}.items():
            yield OWNERS[stream][0], f"{base}/{name}", datatype


def base_name(stream: str, kind: str) -> str:
    first = OWNERS[stream][1]
    return first if kind == stream else f"{first}/{_fit(kind)}"


def fields_of(event: Event) -> list[Field]:
    """What the Event says, flat; two keys that become one name are told apart by `Other` (see `Registry.metrics`)."""
    base = base_name(event.stream, event.kind)
    return [Field(f"{base}/{SEQ}", event.seq), *_flat(base, event.body, 0)]


def _flat(base: str, body: Mapping[str, Any], depth: int) -> Iterator[Field]:
    for key, value in body.items():
        name = f"{base}/{_fit(str(key))}"
        if isinstance(value, dict) and depth < DEPTH:
            yield from _flat(name, value, depth + 1)
        elif isinstance(value, (dict, list)) or (type(value) is int and value not in INT64):
            yield Field(name, json.dumps(value, separators=(",", ":")))
        else:
            yield Field(name, value)


def _fit(part: str) -> str:
    """Hosts have trouble with special characters in names, and `/` makes folders."""
    return UNFIT.sub("_", part) or "_"


def datatype_of(value: Value) -> DataType | None:
    """None for a null: it has no type of its own."""
    if value is None:
        return None
    if isinstance(value, bool):
        return DataType.BOOLEAN
    return (
        DataType.INT64 if isinstance(value, int) else DataType.DOUBLE if isinstance(value, float) else DataType.STRING
    )


def widened(known: DataType, new: DataType) -> DataType:
    if known is new:
        return known
    return DataType.DOUBLE if {known, new} == {DataType.INT64, DataType.DOUBLE} else DataType.STRING


def as_type(value: Value, datatype: DataType) -> Value:
    if value is None or datatype_of(value) is datatype:
        return value
    if datatype is DataType.STRING:
        return json.dumps(value)
    return float(value)  # only Int64 is widened to Double


class Entry(NamedTuple):
    alias: int
    datatype: DataType


class Registry:
    """The metrics of node and line that were ever told: name → alias and datatype, and the newest value of each."""

    def __init__(self, saved: Iterable[tuple[str, str, int, int]] = (), limit: int = 1000) -> None:
        self._limit = limit
        self._entries: dict[tuple[Owner, str], Entry] = {}
        self._folded: dict[tuple[Owner, str], str] = {}  # names that differ by case alone are one to many hosts
        self._values: dict[tuple[Owner, str], tuple[Value, int]] = {}
        self._next_alias = 1
        for whose, name, alias, number in saved:
            self._put(Owner(whose), name, DataType(number), alias)
        for owner, name, datatype in known_metrics():
            self.declare(owner, name, datatype, always=True)

    def saved(self) -> list[tuple[str, str, int, int]]:
        return [(owner.value, name, e.alias, int(e.datatype)) for (owner, name), e in self._entries.items()]

    def declare(self, owner: Owner, name: str, datatype: DataType, always: bool = False) -> bool:
        """True where this is news for the host."""
        known = self._entries.get((owner, name))
        if known is not None:
            wide = widened(known.datatype, datatype)
            self._entries[owner, name] = Entry(known.alias, wide)
            return wide is not known.datatype
        full = len(self._entries) >= self._limit and not always
        if full or len(name) > NAME_LIMIT or (owner, name.lower()) in self._folded:
            return False
        self._put(owner, name, datatype, self._next_alias)
        return True

    def _put(self, owner: Owner, name: str, datatype: DataType, alias: int) -> None:
        self._entries[owner, name] = Entry(alias, datatype)
        self._folded[owner, name.lower()] = name
        self._next_alias = max(self._next_alias, alias + 1)

    def learn(self, events: Iterable[Event]) -> bool:
        """Take in what these Events hold; True where a birth must tell the host first."""
        news = False
        for event in events:
            owner = OWNERS[event.stream][0]
            for name, value in fields_of(event):
                datatype = datatype_of(value)
                news |= datatype is not None and self.declare(owner, name, datatype)
        return news

    def metrics(self, event: Event, historical: bool) -> list[Metric]:
        """What a data message says of one Event that was learnt."""
        owner, timestamp_ms = OWNERS[event.stream][0], event.wall_ns // 1_000_000
        out: dict[str, Metric] = {}
        rest: dict[str, Value] = {}
        for name, value in fields_of(event):
            entry = self._entries.get((owner, name))
            if entry is None or name in out:
                rest |= {} if value is None else {name: value}
                continue
            value = as_type(value, entry.datatype)
            out[name] = Metric(None, entry.alias, entry.datatype, value, timestamp_ms, historical)
        if rest:
            text = json.dumps({"stream": event.stream, "kind": event.kind, "seq": event.seq, "fields": rest})
            entry = self._entries[owner, OTHER]
            out[OTHER] = Metric(None, entry.alias, entry.datatype, text, timestamp_ms, historical)
        if not historical:
            self._remember(owner, out)
        return list(out.values())

    def remember(self, event: Event) -> None:
        """`event` is what its metrics say now, sent or not."""
        self.metrics(event, historical=False)

    def _remember(self, owner: Owner, metrics: Mapping[str, Metric]) -> None:
        for name, metric in metrics.items():
            short = not isinstance(metric.value, str) or len(metric.value) <= KEPT_TEXT_BYTES
            self._values[owner, name] = (metric.value if short else None, metric.timestamp_ms)

    def birth(self, owner: Owner, now_ms: int) -> list[Metric]:
        """All metrics of node or line, each with its newest value and the time of it, oldest first."""
        out = []
        for (whose, name), entry in self._entries.items():
            if whose is owner:
                value, timestamp_ms = self._values.get((owner, name), (None, now_ms))
                out.append(Metric(name, entry.alias, entry.datatype, as_type(value, entry.datatype), timestamp_ms))
        return sorted(out, key=lambda m: m.timestamp_ms)

    def set(self, owner: Owner, name: str, value: Value, now_ms: int) -> Metric | None:
        """A value that no Event carries; the metric of it where it has changed."""
        entry = self._entries[owner, name]
        if self._values.get((owner, name), (object(),))[0] == value:
            return None
        self._values[owner, name] = (value, now_ms)
        return Metric(None, entry.alias, entry.datatype, value, now_ms)

    def find(self, name: str | None, alias: int | None) -> tuple[str, DataType] | None:
        """What a command means, by name or by alias."""
        for (_, known), entry in self._entries.items():
            if known == name or (name is None and entry.alias == alias):
                return known, entry.datatype
        return None


def messages(events: Iterable[Sequence[Metric]], most: int, most_bytes: int) -> Iterator[list[Metric]]:
    """Metrics of Events, in order, as the contents of messages: an Event is never divided, and no message has two values of
    one metric with one time."""
    part: list[Metric] = []
    size = 0
    times: set[tuple[int | None, int]] = set()
    for metrics in events:
        its_size = sum(24 + (len(m.value) if isinstance(m.value, str) else 0) for m in metrics)
        its_times = {(m.alias, m.timestamp_ms) for m in metrics}
        if part and (len(part) + len(metrics) > most or size + its_size > most_bytes or times & its_times):
            yield part
            part, size, times = [], 0, set()
        part, size, times = [*part, *metrics], size + its_size, times | its_times
    if part:
        yield part
