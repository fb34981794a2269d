"""Desired state: what the cloud asks a device to take, and what the device reports. One table of keys.

Leaf `desired` (retained, `signed` with kind ``desired``):  {v, device, version, issued_ns, state}
Leaf `reported` (retained):                                 {v, version, state, refused}

`state` is the whole of what is asked for: a key that is not in it goes back to the device's own configuration. `version`
must rise. A state with one key that is unknown or out of its range is refused as a whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edge_runtime.wire.envelope import INT64_MAX, strict_json
from edge_runtime.wire.signed import SIGNED_LIMIT_BYTES, canonical, read_fields

VERSION = 1
KIND = "desired"
REASON_LIMIT = 500


class Key(NamedTuple):
    """`low` … `high` is the range; `or_zero`: 0 is allowed beside it."""

    type: type
    low: float
    high: float
    meaning: str
    or_zero: bool = False


#: what may be asked for
KEYS: dict[str, Key] = {
    "reconnect_spread_s": Key(float, 0.0, 3600.0, "a fleet that lost its broker comes back spread over this time"),
    "rate_bytes_per_s": Key(int, 128, 10**9, "limit of the uplink", or_zero=True),
    "backlog_share": Key(float, 0.05, 0.95, "share of the limited uplink that the backlog gets beside live records"),
    "metered": Key(bool, 0, 1, "send only what is worth its price"),
    "metered_priority": Key(int, 0, 9, "the least urgent class that is sent while metered"),
}

State = Mapping[str, Any]


@dataclass(frozen=True)
class Desired:
    device: str
    version: int
    issued_ns: int
    state: State = field(default_factory=dict)

    def body(self) -> bytes:
        """The bytes to be signed."""
        return canonical({"v": VERSION, **vars(self), "state": dict(self.state)})


@dataclass(frozen=True)
class Refusal:
    """The version that was not taken, and why."""

    version: int
    reason: str


@dataclass(frozen=True)
class Reported:
    """`version` and `state`: what holds on the device now (0 and {}: its own configuration)."""

    version: int
    state: State = field(default_factory=dict)
    refused: Refusal | None = None

    def to_json(self) -> bytes:
        refused = vars(self.refused) if self.refused else None
        value = {"v": VERSION, "version": self.version, "state": dict(self.state), "refused": refused}
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def read_desired(body: bytes) -> Desired:
    """The content of a desired state, its keys unchecked; ValueError names what is wrong with the rest."""
    types = {"device": str, "version": int, "issued_ns": int, "state": dict}
    wanted = Desired(**read_fields(body, "desired state", VERSION, types))
    if wanted.version < 1:
        raise ValueError("desired state: version must be 1 or more")
    return wanted


def check_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with its numbers in the types of KEYS; ValueError names the first key that is unknown or out of range."""
    return {name: _check(name, value) for name, value in state.items()}


def _check(name: str, value: Any) -> Any:
    key = KEYS.get(name)
    if key is None:
        raise ValueError(f"unknown key {name}; known keys: {', '.join(KEYS)}")
    if key.type is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, found {value!r}")
        return value
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole or (key.type is float and isinstance(value, float) and math.isfinite(value))):
        raise ValueError(f"{name} must be {'a whole' if key.type is int else 'a'} number, found {value!r}")
    if not key.low <= value <= key.high and not (key.or_zero and value == 0):
        zero = "0 or " if key.or_zero else ""
        raise ValueError(f"{name} = {value}: expected {zero}{key.low:g} to {key.high:g}")
    return key.type(value)


def read_reported(payload: bytes) -> Reported:
    """What a device reports; ValueError where it is not of this format."""
    if len(payload) > SIGNED_LIMIT_BYTES:
        raise ValueError(f"reported state of {len(payload)} bytes is over the limit of {SIGNED_LIMIT_BYTES}")
    value = strict_json(payload, "reported state")
    if not isinstance(value, dict) or value.get("v") != VERSION or not isinstance(value.get("state"), dict):
        raise ValueError(f"reported state: expected an object with v = {VERSION} and a state")
    refused = value.get("refused")
    if refused is not None:
        if not isinstance(refused, dict) or not isinstance(refused.get("reason"), str):
            raise ValueError("reported state: refused must have version and reason, or be null")
        refused = Refusal(_version(refused.get("version")), refused["reason"][:REASON_LIMIT])
    return Reported(_version(value.get("version")), value["state"], refused)


def _version(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= INT64_MAX:
        raise ValueError(f"reported state: version must be a whole number, found {value!r}")
    return value
