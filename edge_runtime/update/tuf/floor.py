"""The version floor: what this device has seen at the highest, so that nothing older is taken whatever became of other files.

    <folder>/floor.0, floor.1     the same record in two files, written one after the other: a line of JSON, a line of SHA-256

- Versions only rise. What a newer root brings: where it takes a role's keys away from those who signed before, the floor of
  that role begins again, because whoever held the old keys may have signed any number (fast-forward recovery of TUF). The
  versions of `targets` and of delegated roles are told by the snapshot, and begin again with it.
- Counters of assignments are held by the key that sealed them, and begin again with it: when the offline keys name that key no
  more. `index` (of artifacts) never begins again.
- One damaged file loses nothing. Both damaged, or none where metadata lies: refused, never begun from zero in silence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.errors import ResourceError
from edge_runtime.wire.envelope import INT64_MAX

VERSION = 1
FILES = ("floor.0", "floor.1")
LIMIT_BYTES = 1024 * 1024
ROLES_LIMIT = 1024
NAME_LIMIT = 256

#: key prints of who may sign a role, and how many of them must
Signers = tuple[frozenset[str], int]


@dataclass(frozen=True)
class Floor:
    """`roles`: targets and the roles that it delegates to. `keys`: prints of the keys that the versions of timestamp and
    snapshot were counted under. `counters`: print of an assignment key → the highest that it sealed. `time_ns`: when
    everything was last found valid."""

    root: int = 0
    timestamp: int = 0
    snapshot: int = 0
    roles: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, Set[str]] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    index: int = 0
    time_ns: int = 0

    @property
    def versions(self) -> dict[str, int]:
        """As `wire.update_status` tells them."""
        targets = self.roles.get("targets", 0)
        return {
            "root": self.root, "timestamp": self.timestamp, "snapshot": self.snapshot, "targets": targets,
            "index": self.index,
        }  # fmt: skip

    def under(self, root: int, signers: Mapping[str, Signers]) -> Floor:
        """The floor that holds under this root. An older or the same one changes nothing."""
        if root <= self.root:
            return self
        gone = {role for role in ("timestamp", "snapshot") if self._replaced(role, signers[role])}
        return replace(
            self,
            root=root,
            timestamp=0 if "timestamp" in gone else self.timestamp,
            snapshot=0 if "snapshot" in gone else self.snapshot,
            roles={} if "snapshot" in gone else self.roles,
            keys={role: keys for role, (keys, _) in signers.items()},
        )

    def _replaced(self, role: str, signers: Signers) -> bool:
        """Those who signed before could not sign any more."""
        keys, threshold = signers
        return len(self.keys.get(role, frozenset()) & keys) < threshold

    def counter(self, named: Set[str]) -> int:
        """The highest that was seen of assignments by the keys that are named now."""
        return max((counter for key, counter in self.counters.items() if key in named), default=0)

    def counted(self, by: str, counter: int, named: Set[str]) -> Floor:
        """An assignment was verified. What keys have sealed that are named no more is forgotten."""
        kept = {key: highest for key, highest in self.counters.items() if key in named}
        return replace(self, counters={**kept, by: max(counter, kept.get(by, 0))})

    def raised(self, timestamp: int = 0, snapshot: int = 0, roles: Mapping[str, int] | None = None) -> Floor:
        highest = dict(self.roles)
        for role, version in (roles or {}).items():
            highest[role] = max(version, highest.get(role, 0))
        return replace(
            self, timestamp=max(self.timestamp, timestamp), snapshot=max(self.snapshot, snapshot), roles=highest
        )

    def below(self, timestamp: int = 0, snapshot: int = 0, roles: Mapping[str, int] | None = None) -> Iterator[str]:
        """What of these versions is older than the floor, in words. 0 or None: not looked at. Where `roles` are given, none
        that was seen may be missing."""
        for role, version, least in (
            ("timestamp", timestamp, self.timestamp),
            ("snapshot", snapshot, self.snapshot),
        ):
            if version and version < least:
                yield f"{role} version {version} is older than {least}, which this device has seen"
        for role, least in self.roles.items() if roles is not None else ():
            if (roles or {}).get(role, 0) < least:
                found = (roles or {}).get(role)
                told = f"{role} version {found} is older than {least}" if found else f"{role} is gone, not at {least}"
                yield f"{told}, which this device has seen"


class FloorFiles:
    """The two files in `folder`. `floor` is what they hold; `keep` puts another in its place."""

    def __init__(self, folder: Path, metadata: Path) -> None:
        """`metadata`: where that lies which makes a missing floor suspicious."""
        if why := lost(folder, metadata):
            raise ResourceError(
                f"{folder / FILES[0]} and {FILES[1]}: {why}, so that an old release could pass for a new one; what runs goes "
                "on, nothing new is installed; look at what this device runs, then: gudgeon update floor reset --from MEDIUM"
            )
        self._paths = [folder / name for name in FILES]
        found = [_read(path) for path in self._paths]
        self._number, self.floor = max(filter(None, found), key=lambda entry: entry[0], default=(0, Floor()))
        if not any(found) or found[0] != found[1]:
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
            self._write(self._number + 1, self.floor)

    @classmethod
    def begin_again(cls, folder: Path, floor: Floor) -> None:
        """`floor` in the place of one that was lost, because a person says so."""
        for name in FILES:
            replace_file(folder / name, _encode(1, floor))

    def keep(self, floor: Floor) -> None:
        """On the disk, in both files, when this returns. Nothing is written where nothing changes."""
        if floor != self.floor:
            self._write(self._number + 1, floor)

    def _write(self, number: int, floor: Floor) -> None:
        data = _encode(number, floor)
        for path in self._paths:
            replace_file(path, data)
            self._number, self.floor = number, floor


def lost(folder: Path, metadata: Path) -> str:
    """Why the floor is gone; "" where it is there, or where nothing was seen yet."""
    files = [folder / name for name in FILES]
    if any(_read(path) for path in files):
        return ""
    with disk_errors(folder):
        seen = any(path.exists() for path in files)
        return "both damaged" if seen else "both missing" if metadata.is_dir() and any(metadata.iterdir()) else ""


def stored(folder: Path) -> Floor:
    """What the files hold, as far as they can be read; nothing is written."""
    found = [_read(folder / name) for name in FILES]
    return max(filter(None, found), key=lambda entry: entry[0], default=(0, Floor()))[1]


def _encode(number: int, floor: Floor) -> bytes:
    keys = {role: sorted(prints) for role, prints in floor.keys.items()}
    told = {"roles": dict(floor.roles), "keys": keys, "counters": dict(floor.counters)}
    value = {"v": VERSION, "number": number, **vars(floor), **told}
    line = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
    return line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n"


def _read(path: Path) -> tuple[int, Floor] | None:
    """None where the file is missing, or is not what was written."""
    with disk_errors(path):
        if not path.is_file() or path.stat().st_size > LIMIT_BYTES:
            return None
        line, _, rest = path.read_bytes().partition(b"\n")
    if rest != hashlib.sha256(line).hexdigest().encode() + b"\n":
        return None
    try:
        return _decode(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _decode(value: dict[str, Any]) -> tuple[int, Floor]:
    if value.pop("v") != VERSION:
        raise ValueError
    number = value.pop("number")
    keys = {role: frozenset(map(str, prints)) for role, prints in value.pop("keys").items()}
    roles, counters = ({str(k): v for k, v in value.pop(name).items()} for name in ("roles", "counters"))
    known = {f.name for f in fields(Floor)}
    value = {name: version for name, version in value.items() if name in known}  # a newer runtime may have written more
    for count in (number, *roles.values(), *counters.values(), *value.values()):
        if type(count) is not int or not 0 <= count <= INT64_MAX:
            raise ValueError
    return number, Floor(roles=roles, keys=keys, counters=counters, **value)
