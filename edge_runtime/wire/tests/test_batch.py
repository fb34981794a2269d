"""Batches and acknowledgements: round trips, what the signature covers, and hostile input."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.identity import public_text
from edge_runtime.wire.batch import (
    ACK_LIMIT_BYTES,
    PAYLOAD_LIMIT_BYTES,
    Ack,
    Checkpoint,
    Head,
    Shed,
    SignedBatch,
    decode_ack,
    decode_batch,
    encode_ack,
    encode_batch,
    shed_count,
    signed_bytes,
)
from edge_runtime.wire.envelope import Event, genesis, record_hash, record_line

CHAIN = "0123456789abcdef"
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
H = "0" * 64
SHED = Shed(3, "metric", 1, 20, 10, 18, "thin", H, H, H, 1, 2)


def lines(count: int, chain: str = CHAIN) -> list[bytes]:
    made: list[bytes] = []
    prev = genesis("edge1", chain, "metric")
    for seq in range(1, count + 1):
        made.append(record_line(Event("edge1", chain, "metric", seq, "b", "k", seq, seq, None, prev, {"x": seq})))
        prev = record_hash(made[-1])
    return made


def checkpoint(count: int = 0) -> Checkpoint:
    heads = {"metric": Head(count, record_hash(lines(count)[-1]))} if count else {}
    return Checkpoint("edge1", CHAIN, "b", 7, 1, 2, None, public_text(KEY), {"metric": 1}, heads, [SHED])


def encoded(count: int) -> bytes:
    return encode_batch(checkpoint(count), lines(count), KEY.sign)


def verify(batch: SignedBatch) -> None:
    key = Ed25519PublicKey.from_public_bytes(batch.checkpoint.public_key)
    key.verify(batch.signature, signed_bytes(batch.header))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_batch_round_trips_with_its_signature(count: int) -> None:
    batch = decode_batch(encoded(count))
    verify(batch)
    assert batch.lines == lines(count)
    assert [e.seq for e in batch.events] == list(range(1, count + 1))
    assert replace(batch.checkpoint, records=0, sha256="") == checkpoint(count)


@given(st.data())
def test_a_changed_byte_is_found(data: Any) -> None:
    payload = encoded(3)
    at = data.draw(st.integers(0, len(payload) - 1))
    changed = payload[:at] + bytes([payload[at] ^ data.draw(st.integers(1, 255))]) + payload[at + 1 :]
    try:
        batch = decode_batch(changed)
    except ValueError:
        return
    assert batch.lines == lines(3)
    if batch.header != decode_batch(payload).header or batch.signature != decode_batch(payload).signature:
        with pytest.raises((InvalidSignature, ValueError)):
            verify(batch)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p + b"\n" + lines(4)[3],
        lambda p: p.rsplit(b"\n", 1)[0],
        lambda p: b"\n".join(p.split(b"\n")[:2]),
        lambda p: p.split(b"\n", 1)[0],
        lambda p: p.replace(b'"v":2', b'"v":3', 1),
        lambda p: p.replace(b'"floor":{', b'"floor":{"x":-1,', 1),
        lambda p: p.replace(b'"metric":[', b'"metric":[1,', 1),
        lambda p: p.replace(b'"count":18', b'"count":19', 1),
        lambda p: p.replace(b'"policy":"thin"', b'"policy":"lost"', 1),
        lambda p: p.replace(b'"every":10', b'"every":10,"extra":1', 1),
        lambda p: p.replace(CHAIN.encode(), b"zz", 1),
        lambda p: b"",
        lambda p: b"[" * 100_000 + b"\n\n",
        lambda p: b" " * (PAYLOAD_LIMIT_BYTES + 1),
    ],
)
def test_what_is_not_a_batch_is_refused(change: Any) -> None:
    with pytest.raises(ValueError, match=r"batch|shed"):
        decode_batch(change(encoded(3)))


def test_records_of_another_chain_are_refused() -> None:
    foreign = encode_batch(checkpoint(), lines(1, "f" * 16), KEY.sign)
    with pytest.raises(ValueError, match="holds a record of edge1/ffffffffffffffff"):
        decode_batch(foreign)


@given(st.integers(1, 200), st.integers(0, 200), st.sampled_from([0, 2, 3, 10]))
def test_shed_counts_are_those_of_counting(first: int, more: int, every: int) -> None:
    last = first + more
    assert shed_count(first, last, every) == sum(1 for n in range(first, last + 1) if not every or n % every)


spans = st.tuples(st.integers(1, 9), st.integers(1, 9)).map(list)
acks = st.builds(
    Ack,
    chain=st.just(CHAIN),
    committed=st.dictionaries(st.text(), st.integers(0, 2**63 - 1), max_size=5),
    islands=st.dictionaries(st.text(), st.lists(spans, min_size=1, max_size=3)),
    shed=st.integers(0, 2**40), counter=st.integers(0, 2**40), echo_mono_ns=st.integers(0, 2**62),
    received_ns=st.integers(0, 2**62), now_ns=st.integers(0, 2**62),
)  # fmt: skip


@given(acks)
def test_an_ack_round_trips(ack: Ack) -> None:
    assert decode_ack(encode_ack(ack)) == ack


@pytest.mark.parametrize(
    "change",
    [
        {"v": 1}, {"chain": 3}, {"chain": "xyz"}, {"committed": {"a": True}}, {"committed": {"a": -1}}, {"committed": 3},
        {"islands": {"a": [[1]]}}, {"islands": {"a": 1}}, {"islands": [1]}, {"shed": None}, {"now_ns": 2**70},
    ],
)  # fmt: skip
def test_wrong_acks_are_refused(change: dict[str, Any]) -> None:
    good = json.loads(encode_ack(Ack(CHAIN, {"metric": 3})))
    with pytest.raises(ValueError, match="ack"):
        decode_ack(json.dumps({**good, **change}).encode())


def test_an_ack_has_a_size_limit() -> None:
    with pytest.raises(ValueError, match="over the limit"):
        decode_ack(b" " * (ACK_LIMIT_BYTES + 1))


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused_with_value_error(payload: bytes) -> None:
    for decode in (decode_batch, decode_ack):
        try:
            decode(payload)
        except ValueError:
            continue
