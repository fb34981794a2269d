"""What arrives over MQTT, read: topic and payload to one of four items. Pure.

A message that cannot be read becomes a Rejection: it is counted and kept, and it never stops ingest.
A number in a body that is too large for a float becomes null and broken text is mended, so that one odd value never blocks
its stream.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_runtime.wire.batch import PAYLOAD_LIMIT_BYTES, ZSTD_MAGIC, Checkpoint, decode_batch, signed_bytes
from edge_runtime.wire.envelope import LINE_LIMIT_BYTES, Event, event_from_dict, read_record
from edge_runtime.wire.topics import Place, parse

INT64_MAX = 2**63 - 1
REASON_CHARS = 300
BODY_LEVELS = 32
#: a word of the reason → its class; the first that fits
REJECTION_KINDS: tuple[tuple[str, str], ...] = (
    ("not JSON", "not_json"),
    ("decompressed", "compression"),
    ("signature does not fit", "signature"),
    ("not those that the header was made for", "digest"),
    ("topic", "topic"),
    ("expected 1 to 64 characters", "topic"),
    ("status:", "status"),
    ("over the limit", "size"),
    ("event:", "record"),
    ("record of", "record"),
    ("batch", "batch"),
)


@dataclass(frozen=True)
class Batch:
    """Records of one device, in one message, whose signature was found right for the key that its header names."""

    place: Place
    checkpoint: Checkpoint
    header: str
    signature: str
    events: Sequence[Event]
    lines: Sequence[bytes]


@dataclass(frozen=True)
class Status:
    """The device's retained status, or its last will."""

    place: Place
    online: bool
    boot_id: str


@dataclass(frozen=True)
class Rejection:
    topic: str
    reason: str
    size_bytes: int

    @property
    def kind(self) -> str:
        """The class of the reason."""
        return next((kind for word, kind in REJECTION_KINDS if word in self.reason), "other")


@dataclass(frozen=True)
class Connected:
    """Ingest has (re)connected: who is online is about to be told again."""


Item = Batch | Status | Rejection | Connected


def read_message(topic: str, payload: bytes) -> Item:
    try:
        place, leaf = parse(topic)
        return _status(place, payload) if leaf == "status" else _batch(place, payload)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        return Rejection(plain_text(topic), f"not JSON: {error}"[:REASON_CHARS], len(payload))
    except ValueError as error:
        return Rejection(plain_text(topic), plain_text(str(error))[:REASON_CHARS], len(payload))


def _batch(place: Place, payload: bytes) -> Batch:
    batch = decode_batch(_unpacked(payload), _read)
    if batch.checkpoint.device != place.device:
        raise ValueError(f"batch of device {batch.checkpoint.device!r} on the topic of device {place.device!r}")
    try:
        key = Ed25519PublicKey.from_public_bytes(batch.checkpoint.public_key)
        key.verify(batch.signature, signed_bytes(batch.header))
    except InvalidSignature as error:
        raise ValueError("batch: the signature does not fit the header") from error
    for e, line in zip(batch.events, batch.lines, strict=True):
        if line.count(b"{") + line.count(b"[") > BODY_LEVELS:
            _check_depth(e.body)
    signature = base64.b64encode(batch.signature).decode()
    return Batch(place, batch.checkpoint, batch.header.decode(), signature, batch.events, batch.lines)


def _read(line: bytes) -> Event:
    """As `read_record`, quicker: what is not plain, the standard library decides."""
    try:
        return event_from_dict(orjson.loads(line)) if len(line) <= LINE_LIMIT_BYTES else read_record(line)
    except ValueError:
        return read_record(line)


def _unpacked(payload: bytes) -> bytes:
    """The payload without its compression, which never makes more than the limit of a batch."""
    if not payload.startswith(ZSTD_MAGIC):
        return payload
    try:
        told = zstandard.frame_content_size(payload)
        if told > PAYLOAD_LIMIT_BYTES:  # where the size is told, the library does not mind the limit
            raise zstandard.ZstdError(f"it holds {told} bytes")
        return zstandard.ZstdDecompressor().decompress(payload, max_output_size=PAYLOAD_LIMIT_BYTES)
    except zstandard.ZstdError as error:
        raise ValueError(f"batch: cannot be decompressed into {PAYLOAD_LIMIT_BYTES} bytes: {error}") from error


def _check_depth(value: Any, levels: int = BODY_LEVELS) -> None:
    """ValueError for a body that a reader of the store might not take apart again."""
    if levels == 0:
        raise ValueError(f"event: body is nested deeper than {BODY_LEVELS} levels")
    for item in value.values() if type(value) is dict else value:
        if type(item) is dict or type(item) is list:
            _check_depth(item, levels - 1)


def _status(place: Place, payload: bytes) -> Status:
    data = json.loads(payload)
    if not isinstance(data, dict) or not isinstance(data.get("online"), bool):
        raise ValueError('status: expected {"online": true or false, "boot_id": "…"}')
    boot_id = data.get("boot_id")
    return Status(place, data["online"], plain_text(boot_id) if isinstance(boot_id, str) else "")


def plain_text(value: str) -> str:
    """Text that every store takes as UTF-8: what it cannot (half of a surrogate pair, NUL) becomes a question mark."""
    if value.isascii() and "\0" not in value:
        return value
    return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")


def json_text(body: Any) -> str:
    """The body as JSON that every reader takes."""
    try:
        return json.dumps(body, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode().decode()
    except ValueError:
        return json.dumps(_mended(body), allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _mended(value: Any) -> Any:
    if isinstance(value, dict):
        return {plain_text(str(k)): _mended(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_mended(v) for v in value]
    if isinstance(value, str):
        return plain_text(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
