"""Events on the wire: round trips, limits, and an error that names the field for whatever is wrong."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.wire.envelope import (
    INT64_MAX,
    LINE_LIMIT_BYTES,
    STREAMS,
    Event,
    event_from_dict,
    genesis,
    read_record,
    record_hash,
    record_line,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def hexes(count: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=count, max_size=count)


int64 = st.integers(-INT64_MAX, INT64_MAX)
events = st.builds(
    Event,
    device=st.text(max_size=20),
    chain=hexes(16),
    prev=hexes(64),
    stream=st.sampled_from(sorted(STREAMS)),
    seq=st.integers(1, INT64_MAX),
    boot_id=st.text(max_size=20),
    kind=st.text(max_size=20),
    mono_ns=int64,
    wall_ns=int64,
    wall_uncertainty_ns=st.none() | st.integers(0, INT64_MAX),
    body=st.dictionaries(st.text(), json_values, max_size=4),
)
GOOD: dict[str, Any] = {
    "device": "edge1", "chain": "0" * 16, "prev": "f" * 64, "stream": "decision", "seq": 1, "boot_id": "b", "kind": "decision",
    "mono_ns": 1, "wall_ns": 2, "wall_uncertainty_ns": None, "body": {},
}  # fmt: skip


@given(events)
def test_a_record_line_round_trips(event: Event) -> None:
    line = record_line(event)
    assert b"\n" not in line
    assert read_record(line) == event


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_value_error(line: bytes) -> None:
    try:
        read_record(line)
    except ValueError:
        pass


@given(json_values)
def test_any_json_is_read_or_refused_with_value_error(value: Any) -> None:
    for each in (value, {**GOOD, "body": value}, {**GOOD, "seq": value}, {**GOOD, "prev": value}):
        try:
            read_record(json.dumps(each).encode())
        except ValueError:
            continue


def test_the_hash_is_that_of_sha256sum() -> None:
    line = record_line(Event(**GOOD))
    told = subprocess.run(["sha256sum"], input=line, capture_output=True, check=True).stdout.split()[0].decode()
    assert record_hash(line) == told


def test_the_first_record_of_each_stream_and_chain_has_a_predecessor_of_its_own() -> None:
    found = {genesis(d, c, s) for d in ("a", "b") for c in ("0" * 16, "1" * 16) for s in STREAMS}
    assert len(found) == 4 * len(STREAMS)


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("wrong", [True, 1.5, [], "missing"])
def test_a_wrong_field_is_named(name: str, wrong: Any) -> None:
    if wrong == "missing":
        if name == "wall_uncertainty_ns":
            return
        value = {k: v for k, v in GOOD.items() if k != name}
    else:
        value = {**GOOD, name: wrong}
    with pytest.raises(ValueError, match=name):
        event_from_dict(value)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("seq", 0), ("seq", -1), ("seq", 2**63), ("mono_ns", 2**63), ("wall_ns", -(2**70)), ("stream", "rumour")],
)
def test_a_value_out_of_range_is_named(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=name):
        event_from_dict({**GOOD, name: wrong})


def test_unknown_fields_are_ignored() -> None:
    assert event_from_dict({**GOOD, "added_later": 1}) == Event(**GOOD)


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"a":' * 20_000, b"[]", b'{"seq":NaN}', b"\xff\xfe", b""])
def test_hostile_lines_are_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"record|event"):
        read_record(line)


def test_the_size_limit() -> None:
    line = record_line(Event(**GOOD))
    assert read_record(line.ljust(LINE_LIMIT_BYTES)) == Event(**GOOD)
    with pytest.raises(ValueError, match="over the limit"):
        read_record(line.ljust(LINE_LIMIT_BYTES + 1))


def test_a_number_that_is_not_json_is_never_stored() -> None:
    with pytest.raises(ValueError, match="JSON"):
        record_line(Event(**{**GOOD, "body": {"x": float("nan")}}))


def test_decisions_alarms_and_faults_are_durable() -> None:
    assert {name for name, (_, durable) in STREAMS.items() if durable} >= {"alarm", "fault", "decision", "command"}
    assert all(0 <= priority <= 9 for priority, _ in STREAMS.values())
