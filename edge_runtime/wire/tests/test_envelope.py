"""Events on the wire: round trips, limits, and an error that names the field for whatever is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.wire import envelope
from edge_runtime.wire.envelope import BATCH_LIMIT_BYTES, INT64_MAX, STREAMS, Event

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
int64 = st.integers(-INT64_MAX, INT64_MAX)
events = st.builds(
    Event,
    device=st.text(max_size=20),
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
    "device": "edge1", "stream": "decision", "seq": 1, "boot_id": "b", "kind": "decision",
    "mono_ns": 1, "wall_ns": 2, "wall_uncertainty_ns": None, "body": {},
}  # fmt: skip


@given(st.lists(events, max_size=4))
def test_a_batch_round_trips(batch: list[Event]) -> None:
    assert envelope.decode_batch(envelope.encode_batch(batch, {"alarm": 7})) == (batch, {"alarm": 7})


@given(st.dictionaries(st.text(), st.integers(0, 2**63 - 1), max_size=5))
def test_an_ack_round_trips(committed: dict[str, int]) -> None:
    assert envelope.decode_ack(envelope.encode_ack(committed)) == committed


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused_with_value_error(payload: bytes) -> None:
    for decode in (envelope.decode_batch, envelope.decode_ack):
        try:
            decode(payload)
        except ValueError:
            continue


@given(json_values)
def test_any_json_is_decoded_or_refused_with_value_error(value: Any) -> None:
    for payload in (value, {"v": 1, "events": value}, {"v": 1, "events": [value]}, {"v": 1, "committed": value}):
        raw = json.dumps(payload).encode()
        for decode in (envelope.decode_batch, envelope.decode_ack):
            try:
                decode(raw)
            except ValueError:
                continue


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
        envelope.event_from_dict(value)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("seq", 0), ("seq", -1), ("seq", 2**63), ("mono_ns", 2**63), ("wall_ns", -(2**70)), ("stream", "rumour")],
)
def test_a_value_out_of_range_is_named(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=name):
        envelope.event_from_dict({**GOOD, name: wrong})


def test_unknown_fields_are_ignored() -> None:
    assert envelope.event_from_dict({**GOOD, "added_later": 1}) == Event(**GOOD)


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 100_000,
        b'{"v":1,"events":[' + b'{"a":' * 50_000,
        b'{"v":2,"events":[]}',
        b'{"v":1}',
        b"[]",
        b'{"v":1,"events":[NaN]}',
        b"\xff\xfe",
        b"",
    ],
)
def test_hostile_batches_are_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="batch"):
        envelope.decode_batch(payload)


def test_the_size_limits() -> None:
    assert envelope.decode_batch(b'{"v":1,"events":[]}'.ljust(4 * BATCH_LIMIT_BYTES)) == ([], {})
    with pytest.raises(ValueError, match="over the limit"):
        envelope.decode_batch(b'{"v":1,"events":[]}'.ljust(4 * BATCH_LIMIT_BYTES + 1))
    with pytest.raises(ValueError, match="over the limit"):
        envelope.decode_ack(b" " * (envelope.ACK_LIMIT_BYTES + 1))


@pytest.mark.parametrize(
    "payload", [b'{"v":1,"committed":{"a":true}}', b'{"v":1,"committed":{"a":-1}}', b'{"v":1}', b"3"]
)
def test_wrong_acks_are_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="ack"):
        envelope.decode_ack(payload)


def test_a_number_that_is_not_json_is_never_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        envelope.encode_batch([Event(**{**GOOD, "body": {"x": float("nan")}})])


def test_decisions_alarms_and_faults_are_durable() -> None:
    assert {name for name, (_, durable) in STREAMS.items() if durable} >= {"alarm", "fault", "decision", "command"}
    assert all(0 <= priority <= 9 for priority, _ in STREAMS.values())
