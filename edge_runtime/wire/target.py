"""Target: what the signed metadata of a repository say of one artifact. Pure format, shared by device and cloud.

    custom = {kind, digest, index, floor, hardware}

- `index` rises with every artifact of a repository; a device takes none below its floor, and after it has confirmed one,
  none below that one's `floor`. So a release with a hole is closed for good by the one that mends it.
- `hardware`: the classes that it is made for; ``*`` is any.
- Beside artifacts the top-level targets name the keys that may seal assignments: ``assignment-keys/<print>.pub``, one line of
  base64, which is its custom `public`, too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from edge_runtime.wire.assignment import TARGET
from edge_runtime.wire.envelope import INT64_MAX
from edge_runtime.wire.manifest import SHA256

#: first part of the path, which is the name of the delegated role, too → kind
KINDS: Mapping[str, str] = {"models": "model", "runtime": "runtime", "config": "config", "os": "os"}
FIELDS = ("kind", "digest", "index", "floor", "hardware")
LONGEST_BYTES = 4 * 1024**3
HARDWARE_LIMIT = 32
ANY = "*"

ASSIGNMENT_KEYS = "assignment-keys/"
ASSIGNMENT_KEYS_LIMIT = 8


@dataclass(frozen=True)
class Target:
    """`path`, `length` and `sha256` of the whole artifact file; the rest is its `custom`."""

    path: str
    length: int
    sha256: str
    kind: str
    digest: str
    index: int
    floor: int
    hardware: Sequence[str]

    @property
    def file(self) -> str:
        """Where the repository has it, below `targets/`."""
        return prefixed(self.path, self.sha256)

    @property
    def custom(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in FIELDS}, "hardware": list(self.hardware)}


def prefixed(path: str, sha256: str) -> str:
    """Where a repository with consistent snapshots has a file."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{sha256}.{name}"


def parse_target(path: str, length: int, sha256: str | None, custom: Any) -> Target:
    """What is signed for `path`; ValueError where it is not as it must be."""
    if not TARGET.fullmatch(path):
        raise _wrong(path, f"is no path of an artifact, expected {TARGET.pattern}")
    if not 0 < length <= LONGEST_BYTES or not sha256 or not SHA256.fullmatch(sha256):
        raise _wrong(path, f"needs a SHA-256 and a length from 1 to {LONGEST_BYTES}")
    if not isinstance(custom, dict) or not set(FIELDS) <= set(custom):
        raise _wrong(path, f"needs custom with {', '.join(FIELDS)}")
    found = Target(path, length, sha256, **{name: custom[name] for name in FIELDS})
    expected = KINDS[path.partition("/")[0]]
    if found.kind != expected:
        raise _wrong(path, f"is of kind {str(found.kind)[:40]!r}, expected {expected!r}")
    if not isinstance(found.digest, str) or (found.digest and not SHA256.fullmatch(found.digest)):
        raise _wrong(path, "needs custom.digest, a SHA-256 or nothing")
    if not all(type(n) is int and 0 <= n <= INT64_MAX for n in (found.index, found.floor)) or found.index < 1:
        raise _wrong(path, "needs custom.index from 1 and custom.floor from 0")
    if found.floor > found.index:
        raise _wrong(path, f"has floor {found.floor} above its own index {found.index}")
    classes = found.hardware
    if not isinstance(classes, list) or not 0 < len(classes) <= HARDWARE_LIMIT or not all(map(_is_class, classes)):
        raise _wrong(path, "needs custom.hardware, a list of classes such as x86_64, or *")
    return found


def _is_class(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) <= 64


def why_not(target: Target, hardware: Set[str], floor_index: int) -> str:
    """Why a device of these classes, with this floor, must not take it; "" where it may."""
    if ANY not in target.hardware and not hardware & set(target.hardware):
        told = ", ".join(target.hardware)[:200]
        return f"is made for {told}; this device is {', '.join(sorted(hardware))}"
    if target.index < floor_index:
        return f"has artifact index {target.index}, below this device's floor of {floor_index}"
    return ""


def _wrong(path: str, what: str) -> ValueError:
    return ValueError(f"target {path[:200]!r} {what}")


def assignment_key(path: str, sha256: str | None, custom: Any) -> bytes | None:
    """The raw Ed25519 key that this entry of the top-level targets names; None where it names none, or is not made so."""
    if not path.startswith(ASSIGNMENT_KEYS) or not isinstance(custom, dict):
        return None
    text = custom.get("public")
    if not isinstance(text, str) or hashlib.sha256(f"{text}\n".encode()).hexdigest() != sha256:
        return None
    try:
        public = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return public if len(public) == 32 else None


def assignment_print(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:16]


def assignment_key_path(public: bytes) -> str:
    return f"{ASSIGNMENT_KEYS}{assignment_print(public)}.pub"
