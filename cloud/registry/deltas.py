"""The registry's deltas: for each published artifact, how it can be had from its predecessors for fewer bytes.

All kinds are made, and of each pair the smallest is published, or none: one that is not at least a fifth smaller than what a
device would fetch without it is not worth the work there. They lie beside the signed repository as hints that nobody has to
believe, so that making them needs no key. A hint without candidates says that it was tried.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cloud.registry.artifacts import targets_of
from cloud.registry.folder import Registry
from edge_runtime.delta import making
from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.errors import UsageError
from edge_runtime.wire import delta
from edge_runtime.wire.archive import ArchiveError
from edge_runtime.wire.delta import Candidate, Hint
from edge_runtime.wire.target import Target

PREDECESSORS = 3
#: what is made in memory here and not longer than some minutes
LONGEST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Made:
    """`source`: the path of the artifact it starts from, "" for none. `sizes`: of all that were made. `chosen`: "" for none."""

    source: str
    target: str
    full_bytes: int
    zstd_bytes: int
    sizes: dict[str, int] = field(default_factory=dict)
    chosen: str = ""


def build(registry: Registry, target: str = "", again: bool = False) -> list[Made]:
    """Make what is missing for the published targets, or for one; `again`: also what is there."""
    if target and target not in targets_of(registry, published_only=True):
        raise UsageError(f"target {target!r}: not in the published targets; see `gudgeon repo status`")
    return [made for found, sources in _wanted(registry, target, again) for made in _publish(registry, sources, found)]


def missing(registry: Registry) -> bool:
    """Whether `build` would find something to do."""
    return any(True for _ in _wanted(registry, "", again=False))


def stale(registry: Registry) -> list[Path]:
    """The files of deltas that lead to artifacts which are named no more."""
    named = {target.sha256 for target in targets_of(registry, published_only=True).values()}
    return [path for path in (registry.folder / "repo" / "deltas").glob("*/*") if path.name[:64] not in named]


def sweep(registry: Registry) -> int:
    """Remove those; how many files that were."""
    found = stale(registry)
    for path in found:
        with disk_errors(path):
            path.unlink(missing_ok=True)
    return len(found)


def _wanted(registry: Registry, target: str, again: bool) -> Iterator[tuple[Target, list[Target | None]]]:
    published = targets_of(registry, published_only=True)
    for path, found in published.items():
        if target in ("", path) and _fits(found):
            sources = [None, *predecessors(published, found)]
            if wanted := [s for s in sources if again or not _hint_file(registry, s, found).exists()]:
                yield found, wanted


def _fits(target: Target) -> bool:
    return target.length <= LONGEST_BYTES and target.path.endswith(".tar")


def predecessors(published: dict[str, Target], target: Target) -> list[Target]:
    """What a device of this name is likely to have: the newest before it."""
    name = target.path.rpartition("/")[0]
    older = [t for p, t in published.items() if p.rpartition("/")[0] == name and t.index < target.index]
    fitting = [t for t in older if _fits(t) and t.sha256 != target.sha256]
    return sorted(fitting, key=lambda t: -t.index)[:PREDECESSORS]


def _publish(registry: Registry, sources: list[Target | None], target: Target) -> Iterator[Made]:
    new = _read(registry, target)
    alone, packed = making.zstd_bytes(new), _all(None, new)
    smallest = min(map(len, packed.values()), default=len(new))
    for source in sources:
        found = packed if source is None else _all(_read(registry, source), new)
        sizes = {name: len(data) for name, data in found.items()}
        chosen = making.choose(len(new), smallest, sizes)
        place = _hint_file(registry, source, target)
        candidates = tuple(_keep(place.parent, target, name, found[name]) for name in filter(None, [chosen]))
        hint = Hint(source.sha256 if source else delta.NOTHING, target.sha256, candidates)
        with disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, hint.to_json())
        yield Made(source.path if source else "", target.path, target.length, alone, sizes, chosen)


def _all(source: bytes | None, target: bytes) -> dict[str, bytes]:
    try:
        return making.make(source, target)
    except ArchiveError:  # one of them is no archive of ours
        return {}


def _keep(folder: Path, target: Target, name: str, data: bytes) -> Candidate:
    file = f"{target.sha256}.{name}"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / file, data)
    return Candidate(name, len(data), hashlib.sha256(data).hexdigest(), file)


def _hint_file(registry: Registry, source: Target | None, target: Target) -> Path:
    return registry.folder / "repo" / delta.hint_path(source.sha256 if source else delta.NOTHING, target.sha256)


def _read(registry: Registry, target: Target) -> bytes:
    place = registry.targets / target.file
    with disk_errors(place):
        return place.read_bytes()
