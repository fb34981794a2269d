"""Removing what nothing needs any more: old versions of metadata, artifacts that nobody names, what a crash has left.

Kept are: every root, for a device that has been away begins with the first; of each other role the newest versions; every
artifact that one of these names, or a staged version, or that the cloud still needs (`in_use`). What is published is never taken
away here: that is `gudgeon repo remove`, which the holder of a key signs.

Each file that goes is one that nothing leads to, so the order does not matter, and whoever is cut in the middle begins again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from cloud.registry import deltas
from cloud.registry.folder import Registry, read_document
from cloud.registry.roles import DELEGATED
from edge_runtime.durable import disk_errors, sync_folder
from edge_runtime.errors import UsageError

KEEP_VERSIONS = 10
SIGNED = ("targets", *DELEGATED)
NUMBERED = re.compile(r"([0-9]+)\.([a-z]+)\.json", re.ASCII)
ARTIFACT = re.compile(r"([0-9a-f]{64})\..+", re.ASCII)
LEFT_OVER = re.compile(r"\.new\.[0-9]+|\..+\.tmp", re.ASCII)


@dataclass(frozen=True)
class Unneeded:
    """`kind`: metadata, artifact, delta, or left over by a crash."""

    path: Path
    kind: str
    size_bytes: int


def unneeded(registry: Registry, in_use: Set[str], keep_versions: int = KEEP_VERSIONS) -> list[Unneeded]:
    """What may go. `in_use`: hashes of artifacts that the cloud knows of. UsageError before the first publication."""
    if keep_versions < 1:
        raise UsageError(f"{keep_versions} versions: expected at least 1, which is what is published")
    published = registry.published()
    if "timestamp" not in published:
        raise UsageError(f"{registry.folder}: nothing is published yet, so nothing is old")
    oldest = {role: document.version - keep_versions + 1 for role, document in published.items() if role != "root"}
    versions = [(path, *_numbered(path)) for path in _files(registry.metadata)]
    kept = [read_document(path, role) for path, role, number in versions if role in SIGNED and number >= oldest[role]]
    kept += [document for role, document in registry.all_staged().items() if role in SIGNED]
    named = {entry.hashes.get("sha256", "") for document in kept for entry in document.signed.targets.values()}
    found = [_one(path, "metadata") for path, role, number in versions if role in oldest and number < oldest[role]]
    for path in _files(registry.targets):
        match = ARTIFACT.fullmatch(path.name)
        if match and match[1] not in named | in_use:
            found.append(_one(path, "artifact"))
    found += [_one(path, "delta") for path in deltas.stale(registry)]
    places = (registry.folder, registry.staged, registry.folder / "repo")
    left = {path for place in places for path in _files(place) if LEFT_OVER.fullmatch(path.name)}
    return found + [_one(path, "left over") for path in sorted(left)]


def prune(registry: Registry, in_use: Set[str], keep_versions: int = KEEP_VERSIONS) -> list[Unneeded]:
    """The same, removed. Nobody publishes or adds meanwhile."""
    with registry.locked():
        found = unneeded(registry, in_use, keep_versions)
        with disk_errors(registry.metadata):
            sync_folder(
                registry.metadata
            )  # who published may have been killed before its newest names were on the disk
        for one in found:
            with disk_errors(one.path):
                one.path.unlink(missing_ok=True)
        for folder in sorted({one.path.parent for one in found}):
            with disk_errors(folder):
                sync_folder(folder)
        return found


def _numbered(path: Path) -> tuple[str, int]:
    match = NUMBERED.fullmatch(path.name)
    return (match[2], int(match[1])) if match else ("", 0)


def _files(folder: Path) -> Iterator[Path]:
    found: Iterable[Path] = folder.rglob("*") if folder.is_dir() else ()
    yield from (path for path in sorted(found) if path.is_file() and not path.is_symlink())


def _one(path: Path, kind: str) -> Unneeded:
    return Unneeded(path, kind, path.stat().st_size)
