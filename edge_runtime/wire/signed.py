"""One signed message of the cloud: two lines, the body as JSON and the base64 of an Ed25519 signature.

The signature is made over `signed_bytes(kind, body)`: the exact bytes of the first line after a prefix that names the
kind, so that no message can pass for one of another kind. Standard library only: who signs and who checks bring the means.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from edge_runtime.wire.envelope import INT64_MAX, strict_json

SIGNED_LIMIT_BYTES = 16 * 1024


class Sealed(NamedTuple):
    """A message as it came. Its signature is not checked yet."""

    body: bytes
    signature: bytes


def signed_bytes(kind: str, body: bytes) -> bytes:
    """What the signature of a message of this kind is made over."""
    return f"gudgeon {kind}\n".encode() + body


def canonical(value: Mapping[str, Any]) -> bytes:
    """The one line of JSON that is signed; it is passed on as it is and never made anew."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()


def seal(kind: str, body: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    payload = b"\n".join((body, base64.b64encode(sign(signed_bytes(kind, body)))))
    if len(payload) > SIGNED_LIMIT_BYTES:
        raise ValueError(f"{kind} of {len(payload)} bytes is over the limit of {SIGNED_LIMIT_BYTES}")
    return payload


def unseal(payload: bytes, what: str) -> Sealed:
    """The two lines; ValueError where the message is too large or not made so."""
    if len(payload) > SIGNED_LIMIT_BYTES:
        raise ValueError(f"{what} of {len(payload)} bytes is over the limit of {SIGNED_LIMIT_BYTES}")
    body, newline, line = payload.partition(b"\n")
    if not newline:
        raise ValueError(f"{what}: expected a line of JSON and a line with its signature")
    try:
        return Sealed(body, base64.b64decode(line, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{what}: the signature is not base64") from error


def read_fields(body: bytes, what: str, version: int, types: Mapping[str, type]) -> dict[str, Any]:
    """The JSON object of a body with exactly these fields and `v`; ValueError names the one that is wrong."""
    value = strict_json(body, what)
    if not isinstance(value, dict) or value.get("v") != version:
        raise ValueError(f"{what}: expected an object with v = {version}")
    del value["v"]
    for name in sorted(set(value) ^ set(types)):
        raise ValueError(f"{what}: {'unknown' if name in value else 'missing'} field {name}")
    for name, kind in types.items():
        if type(value[name]) is not kind:
            raise ValueError(f"{what}: {name} must be {kind.__name__}, found {value[name]!r}")
        if kind is int and not 0 <= value[name] <= INT64_MAX:
            raise ValueError(f"{what}: {name} must be from 0 to 2**63 - 1, found {value[name]!r}")
    return value
