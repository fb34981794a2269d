"""Assignments: whose they may be, and what of them this device takes. Pure.

The keys that may seal an assignment are entries of the top-level targets, ``assignment-keys/<print>.pub``, so that they are
named, changed and taken away by the offline keys. Whoever steals the online key can only choose among artifacts that the
offline keys have signed, above the floor, for devices of that hardware.

Refused as a whole: not signed by such a key, for another device, a counter below the highest seen or far above it, expired.
Refused one by one: an item whose target or hash is not what is signed, or that this device may not take. ``revert`` brings no
artifact, so that it may name one that is in the targets no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_runtime.errors import BundleError
from edge_runtime.update.tuf.target import Target, check_target
from edge_runtime.wire.assignment import KIND, Assignment, Item, read_assignment
from edge_runtime.wire.signed import signed_bytes, unseal
from edge_runtime.wire.target import ASSIGNMENT_KEYS_LIMIT, assignment_key

#: a counter begins with the seconds of that day, and rises; nobody may push it to the end of numbers
STEP_LIMIT = 2**32


@dataclass(frozen=True)
class Taken:
    """`targets`: what is signed for the items that this device takes. `refused`: slot set → why not."""

    assignment: Assignment
    targets: Mapping[str, Target]
    refused: Mapping[str, str]


def assignment_keys(entries: Iterable[tuple[str, str | None, Any]]) -> list[bytes]:
    """From the top-level targets: path, SHA-256 and custom of each. An entry that is not made so names no key."""
    found = [key for entry in entries if (key := assignment_key(*entry)) is not None]
    return found[:ASSIGNMENT_KEYS_LIMIT]


def open_assignment(payload: bytes, keys: Iterable[bytes]) -> tuple[Assignment, bytes]:
    """The assignment, and which of these keys has sealed it; BundleError if none has."""
    try:
        sealed = unseal(payload, KIND)
        by = next((public for public in keys if _signed_by(public, sealed.body, sealed.signature)), None)
        if by is None:
            raise BundleError("assignment: not signed by a key that the offline keys name for it; refused")
        return read_assignment(sealed.body), by
    except (ValueError, TypeError) as error:
        raise BundleError(f"{error}; refused") from error


def _signed_by(public: bytes, body: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signed_bytes(KIND, body))
    except InvalidSignature:
        return False
    return True


def check_assignment(assignment: Assignment, device: str, counter: int, now_ns: int) -> None:
    """`counter`: the highest seen. BundleError where it must not be taken."""
    if assignment.device != device:
        raise BundleError(f"assignment: for device {assignment.device[:80]!r}, this one is {device!r}; refused")
    if assignment.counter < counter:
        raise BundleError(f"assignment: counter {assignment.counter} is older than {counter}, which was seen; refused")
    if assignment.counter > max(counter, now_ns // 10**9) + STEP_LIMIT:
        raise BundleError(
            f"assignment: counter {assignment.counter} is too far above {counter}, which was seen; refused"
        )
    if assignment.expires_ns <= now_ns:
        late_s = (now_ns - assignment.expires_ns) // 10**9
        raise BundleError(f"assignment: expired {late_s} s ago; refused, the next one is asked for")


def take(
    assignment: Assignment, signed: Callable[[str], Target], hardware: Set[str], floor_index: int
) -> tuple[dict[str, Target], dict[str, str]]:
    """The items that this device takes, and those that it refuses. `signed`: path → Target, BundleError if there is none."""
    taken: dict[str, Target] = {}
    refused: dict[str, str] = {}
    for slot_set, item in assignment.items.items():
        if item.go == "revert":
            continue
        try:
            taken[slot_set] = _taken(item, signed, hardware, floor_index)
        except BundleError as error:
            refused[slot_set] = str(error)
    return taken, refused


def _taken(item: Item, signed: Callable[[str], Target], hardware: Set[str], floor_index: int) -> Target:
    target = signed(item.target)
    if target.sha256 != item.sha256:
        raise BundleError(f"target {item.target!r}: the assignment names another hash than what is signed; refused")
    check_target(target, hardware, floor_index)
    return target
