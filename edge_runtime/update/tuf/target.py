"""What the signed metadata say of one artifact, and whether this device may take it. Pure.

    custom = {kind, digest, index, floor, hardware}

- `index` rises with every artifact of a repository; a device takes none below its floor, and after it has confirmed one,
  none below that one's `floor`. So a release with a hole is closed for good by the one that mends it.
- `hardware`: the classes that it is made for; ``*`` is any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from edge_runtime.errors import BundleError
from edge_runtime.wire.assignment import TARGET
from edge_runtime.wire.envelope import INT64_MAX
from edge_runtime.wire.manifest import SHA256

#: first part of the path → kind
KINDS: Mapping[str, str] = {"models": "model", "runtime": "runtime", "config": "config", "os": "os"}
FIELDS = ("kind", "digest", "index", "floor", "hardware")
LONGEST_BYTES = 4 * 1024**3
HARDWARE_LIMIT = 32
ANY = "*"


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
        folder, _, name = self.path.rpartition("/")
        return f"{folder}/{self.sha256}.{name}"


def read_target(path: str, length: int, sha256: str | None, custom: Any) -> Target:
    """What is signed for `path`; BundleError where it is not as it must be."""
    if not TARGET.fullmatch(path):
        raise _refused(path, f"is no path of an artifact, expected {TARGET.pattern}")
    if not 0 < length <= LONGEST_BYTES or not sha256 or not SHA256.fullmatch(sha256):
        raise _refused(path, f"needs a SHA-256 and a length from 1 to {LONGEST_BYTES}")
    if not isinstance(custom, dict) or not set(FIELDS) <= set(custom):
        raise _refused(path, f"needs custom with {', '.join(FIELDS)}")
    found = Target(path, length, sha256, **{name: custom[name] for name in FIELDS})
    if found.kind != KINDS[path.partition("/")[0]]:
        raise _refused(path, f"is of kind {str(found.kind)[:40]!r}, expected {KINDS[path.partition('/')[0]]!r}")
    if not isinstance(found.digest, str) or (found.digest and not SHA256.fullmatch(found.digest)):
        raise _refused(path, "needs custom.digest, a SHA-256 or nothing")
    if not all(type(n) is int and 0 <= n <= INT64_MAX for n in (found.index, found.floor)) or found.index < 1:
        raise _refused(path, "needs custom.index from 1 and custom.floor from 0")
    if found.floor > found.index:
        raise _refused(path, f"has floor {found.floor} above its own index {found.index}")
    classes = found.hardware
    if (
        not isinstance(classes, list)
        or not classes
        or len(classes) > HARDWARE_LIMIT
        or not all(map(_is_class, classes))
    ):
        raise _refused(path, "needs custom.hardware, a list of classes such as x86_64, or *")
    return found


def _is_class(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) <= 64


def check_target(target: Target, hardware: Set[str], floor_index: int) -> None:
    """BundleError where this device must not take it. `hardware`: the classes that the device is of."""
    if ANY not in target.hardware and not hardware & set(target.hardware):
        told = ", ".join(target.hardware)[:200]
        raise _refused(target.path, f"is made for {told}; this device is {', '.join(sorted(hardware))}")
    if target.index < floor_index:
        raise _refused(target.path, f"has artifact index {target.index}, below this device's floor of {floor_index}")


def _refused(path: str, what: str) -> BundleError:
    return BundleError(f"target {path[:200]!r} {what}; refused")
