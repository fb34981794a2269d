"""What arrives and cannot be read becomes a Rejection with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cloud.messages import Batch, Rejection, Status, json_text, read_message
from cloud.tests.made import CHAIN, KEY, PLACE, decision, payload
from edge_runtime.identity import public_text
from edge_runtime.wire.batch import ZSTD_MAGIC, Checkpoint, encode_batch
from edge_runtime.wire.envelope import record_line

TOPIC = PLACE.topic("events")


def with_field(name: str, value: Any) -> bytes:
    """A batch signed as it should be, whose record has an odd field."""
    line = json.dumps(decision(1).to_dict() | {name: value}).encode()
    checkpoint = Checkpoint("dev1", CHAIN, "boot", 1, 1, 2, None, public_text(KEY))
    return encode_batch(checkpoint, [line], KEY.sign)


GOOD = payload([decision(1), decision(2)])
OTHER_KEY = Ed25519PrivateKey.generate()


def changed(old: bytes, new: bytes) -> bytes:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


BAD: list[tuple[str, bytes, str]] = [
    (TOPIC, b"rubbish", "expected a header line"),
    (TOPIC, b"rubbish\n\n", "not JSON"),
    (TOPIC, b"\xff\xfe\x00\n\n", "not UTF-8"),
    (TOPIC, b"[" * 100_000 + b"\n\n", "nested too deeply"),
    (TOPIC, b'{"v": 1, "events": []}\n\n', "expected an object with v = 2"),
    (TOPIC, changed(b'"score":0.25', b'"score":0.75'), "not those that the header was made for"),
    (TOPIC, changed(b'"counter":', b'"counter":1'), "the signature does not fit"),
    (TOPIC, changed(public_text(KEY).encode(), public_text(OTHER_KEY).encode()), "the signature does not fit"),
    (TOPIC, GOOD[: GOOD.rindex(b"\n")], "not those that the header was made for"),
    (TOPIC, ZSTD_MAGIC + b"rubbish", "cannot be decompressed"),
    (TOPIC, zstandard.compress(b" " * 2_000_000), "cannot be decompressed"),
    (PLACE.topic("events").replace("dev1", "dev2"), GOOD, "batch of device 'dev1' on the topic of device 'dev2'"),
    (TOPIC, b" " * 2_000_000, "over the limit"),
    (TOPIC, with_field("device", "dev2"), "holds a record of dev2/"),
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


@pytest.mark.parametrize(("topic", "content", "reason"), BAD)
def test_what_cannot_be_read_is_a_rejection(topic: str, content: bytes, reason: str) -> None:
    found = read_message(topic, content)
    assert isinstance(found, Rejection)
    assert reason in found.reason
    assert found.size_bytes == len(content)
    assert len(found.reason) <= 300


def test_what_can_be_read() -> None:
    for found in (read_message(TOPIC, GOOD), read_message(TOPIC, zstandard.compress(GOOD))):
        assert isinstance(found, Batch)
        assert [e.seq for e in found.events] == [1, 2]
        assert found.header.encode() in GOOD
    status = read_message(PLACE.topic("status"), b'{"online": true, "boot_id": "b"}')
    assert status == Status(PLACE, True, "b")


@given(st.binary(max_size=200))
def test_no_bytes_raise(content: bytes) -> None:
    for leaf in ("events", "status"):
        assert isinstance(read_message(PLACE.topic(leaf), content), Rejection | Batch | Status)


def test_a_number_that_no_float_holds_is_taken() -> None:
    line = record_line(decision(1, score=7)._replace(prev="0" * 64)).replace(b'"score":7', b'"score":1e999')
    checkpoint = Checkpoint("dev1", CHAIN, "boot", 1, 1, 2, None, public_text(KEY))
    found = read_message(TOPIC, encode_batch(checkpoint, [line], KEY.sign))
    assert isinstance(found, Batch)
    assert json.loads(json_text(dict(found.events[0].body)))["score"] is None


def test_json_that_other_readers_refuse_is_mended() -> None:
    odd = {"a": [float("nan"), float("inf"), 1.5], "\ud800": {"b": "x\udfff"}}
    assert json.loads(json_text(odd)) == {"a": [None, None, 1.5], "?": {"b": "x?"}}
