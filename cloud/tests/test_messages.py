"""What arrives and cannot be read becomes a Rejection with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.messages import Batch, Rejection, Status, json_text, read_message
from cloud.tests.made import PLACE, decision
from edge_runtime.wire.envelope import encode_batch

TOPIC = PLACE.topic("events")


def with_field(name: str, value: Any) -> bytes:
    return json.dumps({"v": 1, "events": [decision(1).to_dict() | {name: value}]}).encode()


BAD: list[tuple[str, bytes, str]] = [
    (TOPIC, b"rubbish", "not JSON"),
    (TOPIC, b"\xff\xfe\x00", "not UTF-8"),
    (TOPIC, b"[" * 100_000, "nested too deeply"),
    (TOPIC, b'{"v": 2, "events": []}', "batch: expected"),
    (TOPIC, b'{"v": 1, "events": [7]}', "event: expected an object"),
    (TOPIC, b" " * 2_000_000, "over the limit"),
    (TOPIC, with_field("device", "dev2"), "event of device 'dev2' on the topic of device 'dev1'"),
    (TOPIC, with_field("seq", 0), "seq must be >= 1"),
    (TOPIC, with_field("seq", 2**63), "seq does not fit 64 bits"),
    (TOPIC, with_field("wall_ns", -(2**80)), "wall_ns does not fit 64 bits"),
    (TOPIC, with_field("stream", "gossip"), "unknown stream"),
    (TOPIC, with_field("stream", {}), "stream must be str"),
    (TOPIC, with_field("body", {"a": json.loads("[" * 40 + "]" * 40)}), "nested deeper than 32 levels"),
    (TOPIC, with_field("body", {"a": float("nan")}), "NaN is not JSON"),
    (PLACE.topic("status"), b"[" * 100_000, "not JSON"),
    (PLACE.topic("status"), b"{}", "status: expected"),
    ("v1/too/short", b"{}", "topic 'v1/too/short' is not"),
]


@pytest.mark.parametrize(("topic", "payload", "reason"), BAD)
def test_what_cannot_be_read_is_a_rejection(topic: str, payload: bytes, reason: str) -> None:
    found = read_message(topic, payload)
    assert isinstance(found, Rejection)
    assert reason in found.reason
    assert found.size_bytes == len(payload)
    assert len(found.reason) <= 300


def test_what_can_be_read() -> None:
    assert read_message(TOPIC, encode_batch([decision(1)])) == Batch(PLACE, [decision(1)])
    status = read_message(PLACE.topic("status"), b'{"online": true, "boot_id": "b"}')
    assert status == Status(PLACE, True, "b")


@given(st.binary(max_size=200))
def test_no_bytes_raise(payload: bytes) -> None:
    for leaf in ("events", "status"):
        assert isinstance(read_message(PLACE.topic(leaf), payload), Rejection | Batch | Status)


def test_a_number_that_no_float_holds_is_taken() -> None:
    payload = encode_batch([decision(1, score=7)]).replace(b'"score":7', b'"score":1e999')
    found = read_message(TOPIC, payload)
    assert isinstance(found, Batch)
    assert json.loads(json_text(dict(found.events[0].body)))["score"] is None


def test_json_that_other_readers_refuse_is_mended() -> None:
    odd = {"a": [float("nan"), float("inf"), 1.5], "\ud800": {"b": "x\udfff"}}
    assert json.loads(json_text(odd)) == {"a": [None, None, 1.5], "?": {"b": "x?"}}
