"""What goes over the wire: batches of record lines under a signed header, and the cloud's acknowledgement.

One payload on the leaf ``events``, lines joined by ``\\n``:

    header      a Checkpoint as JSON: what this outbox holds, has given out and has shed
    signature   base64 of Ed25519 over `signed_bytes(header)`
    records     as many record lines as the header says; its `sha256` covers their bytes

The header is signed with the device's key, so that nobody on the way can invent, change or drop records unseen. A
batch without records carries just the checkpoint. Standard library only: who checks the signature brings the means.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from edge_runtime.wire.envelope import BATCH_LIMIT_BYTES, CHAIN, HASH, INT64_MAX, Event, read_record, strict_json

VERSION = 2
PAYLOAD_LIMIT_BYTES = 4 * BATCH_LIMIT_BYTES
ACK_LIMIT_BYTES = 16 * 1024
SHED_LIMIT = 200
ISLANDS_LIMIT = 8
POLICIES = ("evict_oldest", "thin", "retention", "refuse")
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Head(NamedTuple):
    """The newest record of a stream: its number and the hash of its line."""

    seq: int
    hash: str


@dataclass(frozen=True)
class Shed:
    """Records that the device gave up before they were delivered, because its disk budget or their age asked for it.

    `every` 0: all of `first` … `last`; n > 0: all but those whose number n divides. `id` rises with each change: a row that
    grew comes again with a higher id and the same stream and `first`. `prev_hash` is the hash of record `first` − 1 and
    `last_hash` that of record `last`, so that the chain can be followed across the gap. `since_wall_ns` and
    `until_wall_ns`: wall times of the first and the last record.
    """

    id: int
    stream: str
    first: int
    last: int
    every: int
    count: int
    policy: str
    prev_hash: str
    first_hash: str
    last_hash: str
    since_wall_ns: int
    until_wall_ns: int

    def __post_init__(self) -> None:
        for name in ("id", "first", "last", "every", "count", "since_wall_ns", "until_wall_ns"):
            _check_int(getattr(self, name), f"shed: {name}")
        if not 1 <= self.first <= self.last or self.id < 1 or self.every < 0 or self.every == 1:
            raise ValueError(f"shed: {self.first}…{self.last}, every {self.every}, id {self.id} is no range")
        if self.count != shed_count(self.first, self.last, self.every):
            raise ValueError(f"shed: count {self.count} does not fit {self.first}…{self.last}, every {self.every}")
        if self.policy not in POLICIES:
            raise ValueError(f"shed: policy {self.policy!r}, expected one of {', '.join(POLICIES)}")
        if not all(_matches(HASH, h) for h in (self.prev_hash, self.first_hash, self.last_hash)):
            raise ValueError("shed: a hash has 64 lower-case hex digits")
        if not isinstance(self.stream, str):
            raise ValueError("shed: stream must be text")


def shed_count(first: int, last: int, every: int) -> int:
    """How many records of `first` … `last` are shed."""
    return last - first + 1 - ((last // every - (first - 1) // every) if every else 0)


@dataclass(frozen=True)
class Checkpoint:
    """What a device says of its outbox at one moment; the header of a batch.

    `counter` rises with every batch of the chain. `floor`: stream → the lowest number still held or next to be given
    out; what is below and did not arrive will never come. `heads`: the newest record of every stream. `shed`: ranges that
    the cloud has not confirmed yet, oldest first. `records` and `sha256` belong to the lines that follow."""

    device: str
    chain: str
    boot_id: str
    counter: int
    mono_ns: int
    wall_ns: int
    wall_uncertainty_ns: int | None
    key: str = ""
    floor: Mapping[str, int] = field(default_factory=dict)
    heads: Mapping[str, Head] = field(default_factory=dict)
    shed: Sequence[Shed] = ()
    records: int = 0
    sha256: str = ""

    def to_json(self) -> bytes:
        value = {"v": VERSION, **vars(self), "floor": dict(self.floor), "heads": dict(self.heads)}
        value["shed"] = [vars(s) for s in self.shed]
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()

    @property
    def public_key(self) -> bytes:
        """The raw 32-byte Ed25519 key; ValueError where there is none."""
        try:
            key = base64.b64decode(self.key, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("batch: key is not base64") from error
        if len(key) != 32:
            raise ValueError(f"batch: a public key has 32 bytes, this one {len(key)}")
        return key


class SignedBatch(NamedTuple):
    """A batch as it came. The signature is not checked yet."""

    checkpoint: Checkpoint
    header: bytes
    signature: bytes
    events: list[Event]
    lines: list[bytes]


def signed_bytes(header: bytes) -> bytes:
    """What the signature of a batch is made over."""
    return b"gudgeon batch\n" + header


def encode_batch(checkpoint: Checkpoint, lines: Sequence[bytes], sign: Callable[[bytes], bytes]) -> bytes:
    body = b"\n".join(lines)
    header = replace(checkpoint, records=len(lines), sha256=hashlib.sha256(body).hexdigest()).to_json()
    return b"\n".join((header, base64.b64encode(sign(signed_bytes(header))), body))


def decode_batch(payload: bytes, read: Callable[[bytes], Event] = read_record) -> SignedBatch:
    """The content of one message, its signature unchecked; ValueError if it is too large, damaged or not our format. `read`
    makes an Event of a line, as `read_record` does."""
    if len(payload) > PAYLOAD_LIMIT_BYTES:
        raise ValueError(f"batch of {len(payload)} bytes is over the limit of {PAYLOAD_LIMIT_BYTES}")
    parts = payload.split(b"\n", 2)
    if len(parts) != 3:
        raise ValueError("batch: expected a header line, a signature line and records")
    header, signature_line, body = parts
    checkpoint = read_checkpoint(header)
    try:
        signature = base64.b64decode(signature_line, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("batch: the signature is not base64") from error
    lines = body.split(b"\n") if body else []
    if len(lines) != checkpoint.records or hashlib.sha256(body).hexdigest() != checkpoint.sha256:
        raise ValueError("batch: the records are not those that the header was made for")
    events = [read(line) for line in lines]
    for e in events:
        if (e.device, e.chain) != (checkpoint.device, checkpoint.chain):
            raise ValueError(f"batch of {checkpoint.device}/{checkpoint.chain} holds a record of {e.device}/{e.chain}")
    return SignedBatch(checkpoint, header, signature, events, lines)


def read_checkpoint(header: bytes) -> Checkpoint:
    """The header of a batch; ValueError names what is wrong."""
    value = strict_json(header, "batch header")
    if not isinstance(value, dict) or value.get("v") != VERSION:
        raise ValueError(f"batch header: expected an object with v = {VERSION}")
    for name in ("device", "chain", "boot_id", "key", "sha256"):
        if not isinstance(value.get(name), str):
            raise ValueError(f"batch header: {name} must be text, found {value.get(name)!r}")
    for name in ("counter", "mono_ns", "wall_ns", "records"):
        _check_int(value.get(name), f"batch header: {name}")
    if value.get("wall_uncertainty_ns") is not None:
        _check_int(value["wall_uncertainty_ns"], "batch header: wall_uncertainty_ns")
    if not _matches(CHAIN, value["chain"]):
        raise ValueError("batch header: chain must be 16 lower-case hex digits")
    value["floor"] = _sequences(value.get("floor"), "batch header: floor")
    value["heads"] = _heads(value.get("heads"))
    value["shed"] = _shed(value.get("shed"))
    values: dict[str, Any] = {f.name: value.get(f.name) for f in fields(Checkpoint)}
    return Checkpoint(**values)


def _heads(value: Any) -> dict[str, Head]:
    if not isinstance(value, dict):
        raise ValueError("batch header: heads must be an object")
    heads = {}
    for stream, pair in value.items():
        if not isinstance(pair, list) or len(pair) != 2 or not _matches(HASH, pair[1]):
            raise ValueError(f"batch header: heads.{stream} must be [seq, hash], found {pair!r}")
        _check_int(pair[0], f"batch header: heads.{stream}")
        heads[stream] = Head(pair[0], pair[1])
    return heads


def _shed(value: Any) -> list[Shed]:
    if not isinstance(value, list) or len(value) > SHED_LIMIT:
        raise ValueError(f"batch header: shed must be a list of at most {SHED_LIMIT}")
    try:
        return [Shed(**item) for item in value]
    except TypeError as error:
        raise ValueError(f"batch header: shed: {error}") from error


@dataclass(frozen=True)
class Ack:
    """The cloud's answer to batches of one chain.

    `committed`: stream → everything up to here is stored, shed or below the floor. `islands`: what is stored beyond
    that, as closed intervals. `shed`: the highest `Shed.id` that is stored. `counter` and `echo_mono_ns` are those of the
    newest batch that this answers; `received_ns` and `now_ns` are the cloud's wall clock when that batch came and when
    this left, so that the device can tell its own clock's offset (as NTP does, RFC 5905)."""

    chain: str
    committed: Mapping[str, int]
    islands: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)
    shed: int = 0
    counter: int = 0
    echo_mono_ns: int = 0
    received_ns: int = 0
    now_ns: int = 0


def encode_ack(ack: Ack) -> bytes:
    value = {"v": VERSION, **vars(ack), "committed": dict(ack.committed)}
    value["islands"] = {s: list(spans)[:ISLANDS_LIMIT] for s, spans in ack.islands.items() if spans}
    return json.dumps(value, separators=(",", ":")).encode()


def decode_ack(payload: bytes) -> Ack:
    """ValueError if it is not an acknowledgement of our format."""
    if len(payload) > ACK_LIMIT_BYTES:
        raise ValueError(f"ack of {len(payload)} bytes is over the limit of {ACK_LIMIT_BYTES}")
    value = strict_json(payload, "ack")
    if not isinstance(value, dict) or value.get("v") != VERSION or not _matches(CHAIN, value.get("chain")):
        raise ValueError(f"ack: expected an object with v = {VERSION} and a chain")
    numbers = ("shed", "counter", "echo_mono_ns", "received_ns", "now_ns")
    for name in numbers:
        _check_int(value.get(name), f"ack: {name}")
    islands = value.get("islands")
    if not isinstance(islands, dict) or not all(map(_is_intervals, islands.values())):
        raise ValueError("ack: islands must map streams to lists of [first, last]")
    committed = _sequences(value.get("committed"), "ack: committed")
    return Ack(value["chain"], committed, islands, **{name: value[name] for name in numbers})


def _is_intervals(value: Any) -> bool:
    if not isinstance(value, list) or len(value) > ISLANDS_LIMIT:
        return False
    return all(isinstance(i, list) and len(i) == 2 and all(type(n) is int and n > 0 for n in i) for i in value)


def _sequences(value: Any, what: str) -> dict[str, int]:
    """A table of stream → sequence number."""
    if not isinstance(value, dict) or any(type(seq) is not int or not 0 <= seq <= INT64_MAX for seq in value.values()):
        raise ValueError(f"{what} must map streams to sequence numbers")
    return value


def _check_int(value: Any, what: str) -> None:
    if type(value) is not int or abs(value) > INT64_MAX:
        raise ValueError(f"{what} must be a 64-bit integer, found {value!r}")


def _matches(pattern: Any, value: Any) -> bool:
    return isinstance(value, str) and bool(pattern.fullmatch(value))
