"""When a certificate is renewed, pure: from two thirds of its life, spread over a twelfth of it, so that a fleet that was
enrolled on one day does not come back on one day."""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import NamedTuple

FROM, SPREAD = 2 / 3, 1 / 12


class Do(Enum):
    """PROVE: it has expired, so TLS will not take it; its key has to be proven."""

    WAIT = "wait"
    RENEW = "renew"
    PROVE = "prove"


class Life(NamedTuple):
    not_before_ns: int
    not_after_ns: int


def jitter(device: str, serial: int) -> float:
    """From 0 to 1; the same after each start, another one for each certificate."""
    digest = hashlib.sha256(f"{device} {serial}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def renew_at_ns(life: Life, spread: float) -> int:
    return life.not_before_ns + round((life.not_after_ns - life.not_before_ns) * (FROM + SPREAD * spread))


def plan(life: Life, spread: float, now_ns: int) -> Do:
    if now_ns >= life.not_after_ns:
        return Do.PROVE
    return Do.RENEW if now_ns >= renew_at_ns(life, spread) else Do.WAIT
