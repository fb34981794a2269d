"""Assignment: which artifact a device is asked to run in each of its slot sets. Pure format; `signed` with kind ``assignment``.

    {v, device, counter, issued_ns, expires_ns, items: {<slot set>: {target, sha256, rollout, go, window}}}

- It names artifacts and makes none: `target` and `sha256` must be what the offline-signed TUF targets say, or nothing happens.
- It is the whole of what is asked for: a slot set that is not in it keeps what it runs. `counter` rises with every change; a
  device takes none below the highest it has seen.
- `go`: ``activate``; ``stage`` (download and check, do not start: a paused rollout, or one that waits for approval); ``revert``
  (go back to what was confirmed before, if this artifact runs or is staged).
- `window`: when it may start, as local ``HH:MM-HH:MM``, or "" for any time. The device asks again right before it starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.wire.manifest import SHA256
from edge_runtime.wire.signed import canonical, read_fields

VERSION = 1
KIND = "assignment"
GO = ("activate", "stage", "revert")
SLOT_SET = re.compile(r"[a-z0-9-]{1,32}")
#: first part of a target → the slot sets that take it over the air, for people and as a pattern
TAKES: Mapping[str, tuple[str, re.Pattern[str]]] = {
    "models": (
        "default, recipe-<code>, asset-<name>-anomaly or asset-<name>-rul",
        re.compile(r"default|recipe-\d+|asset-[a-z0-9-]+-(anomaly|rul)"),
    ),
    "runtime": ("runtime", re.compile("runtime")),
    "config": ("config", re.compile("config")),
    "os": ("os", re.compile("os")),
}
#: path of a TUF target: one of the delegations, a name, a version
TARGET = re.compile(r"(models|runtime|config|os)/[a-z0-9][a-z0-9._-]{0,63}/[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\.(tar|swu)")
WINDOW = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")
ROLLOUT = re.compile(r"[A-Za-z0-9_.-]{0,64}")
LONGEST_NS = 7 * 24 * 3600 * 10**9
ITEMS_LIMIT = 32

_TYPES: Mapping[str, type] = {"device": str, "counter": int, "issued_ns": int, "expires_ns": int, "items": dict}
_ITEM: Mapping[str, re.Pattern[str]] = {"target": TARGET, "sha256": SHA256, "rollout": ROLLOUT}


def check_slot_set(slot_set: str, target: str) -> None:
    """ValueError where no device has a slot set of this name that takes such a target."""
    names, pattern = TAKES[target.partition("/")[0]]
    if not pattern.fullmatch(slot_set) or not SLOT_SET.fullmatch(slot_set):
        raise ValueError(f"slot set {slot_set[:40]!r} takes no {target[:80]}: expected {names}")


@dataclass(frozen=True)
class Item:
    """`sha256`: of the whole artifact file. `rollout`: which one asks; "" for one device by hand."""

    target: str
    sha256: str
    rollout: str = ""
    go: str = "activate"
    window: str = ""

    def __post_init__(self) -> None:
        for name, pattern in _ITEM.items():
            value = getattr(self, name)
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise ValueError(f"assignment: {name} is {str(value)[:80]!r}, expected {pattern.pattern}")
        if self.go not in GO:
            raise ValueError(f"assignment: go is {str(self.go)[:80]!r}, expected one of {', '.join(GO)}")
        if not isinstance(self.window, str) or (self.window and not WINDOW.fullmatch(self.window)):
            raise ValueError(f"assignment: window is {str(self.window)[:80]!r}, expected HH:MM-HH:MM or nothing")


@dataclass(frozen=True)
class Assignment:
    device: str
    counter: int
    issued_ns: int
    expires_ns: int
    items: Mapping[str, Item] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.counter < 1:
            raise ValueError("assignment: counter must be 1 or more")
        if not 0 < self.expires_ns - self.issued_ns <= LONGEST_NS:
            raise ValueError("assignment: expires_ns must be after issued_ns, by at most 7 days")
        if len(self.items) > ITEMS_LIMIT:
            raise ValueError(f"assignment: {len(self.items)} slot sets, the limit is {ITEMS_LIMIT}")
        for name in self.items:
            if not SLOT_SET.fullmatch(name):
                raise ValueError(f"assignment: slot set {name[:80]!r}: expected 1 to 32 characters of a-z 0-9 -")

    def body(self) -> bytes:
        """The bytes to be signed."""
        items = {name: vars(item) for name, item in self.items.items()}
        return canonical({"v": VERSION, **vars(self), "items": items})


def read_assignment(body: bytes) -> Assignment:
    """The content of an assignment; ValueError names what is wrong."""
    fields = read_fields(body, "assignment", VERSION, _TYPES)
    items = {name: _item(name, value) for name, value in fields.pop("items").items()}
    return Assignment(**fields, items=items)


def _item(name: str, value: Any) -> Item:
    expected = set(Item.__dataclass_fields__)
    if not isinstance(value, dict) or set(value) != expected:
        raise ValueError(f"assignment: {name[:40]}: expected an object with {', '.join(sorted(expected))}")
    return Item(**value)
