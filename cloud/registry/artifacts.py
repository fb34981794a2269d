"""Artifacts of the registry: put in as a file or as a bundle folder, named in the staged targets of their role.

The file lies there, on the disk, before anything names it; it stays when it is named no more, since devices may be fetching it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tuf.api.metadata import TargetFile

from cloud.registry.draft import next_version
from cloud.registry.folder import Registry
from cloud.registry.roles import DELEGATED
from cloud.registry.signing import stage
from edge_runtime.durable import disk_errors, sync_folder
from edge_runtime.errors import DataError, UsageError
from edge_runtime.wire import archive, manifest
from edge_runtime.wire.assignment import TARGET
from edge_runtime.wire.target import ANY, KINDS, LONGEST_BYTES, Target, parse_target

CHUNK_BYTES = 1024 * 1024


def add(
    registry: Registry,
    source: Path,
    path: str,
    now: datetime,
    index: int | None = None,
    floor: int = 0,
    hardware: Sequence[str] = (ANY,),
    digest: str = "",
) -> Target:
    """`source`: an artifact, or a bundle folder, which becomes one. `index`: by default one above the highest there is."""
    if not TARGET.fullmatch(path):
        raise UsageError(f"target {path!r}: expected a path like models/surface/2.tar, {TARGET.pattern}")
    with registry.locked():
        length, sha256, temporary = _copy(registry, source)
        try:
            if source.is_dir():
                digest = hashlib.sha256((source / manifest.MANIFEST).read_bytes()).hexdigest()
            role, index = path.partition("/")[0], index or highest_index(registry) + 1
            custom = {"kind": KINDS[role], "digest": digest, "index": index, "floor": floor, "hardware": list(hardware)}
            try:
                target = parse_target(path, length, sha256, custom)
            except ValueError as error:
                raise UsageError(str(error)) from error
            _keep(registry, temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        entry = TargetFile(length, {"sha256": sha256}, path, {"custom": custom})
        draft = next_version(role, registry.published().get(role), registry.staged_document(role), now)
        draft.signed.targets[path] = entry
        stage(registry, role, draft)
        return target


def check_archive(source: Path) -> None:
    """DataError where every device would refuse this file, after people have signed it."""
    with disk_errors(source), source.open("rb") as file:
        try:
            archive.members(file)
        except archive.ArchiveError as error:
            raise DataError(
                f"{source}: no archive that a device takes ({error}); give a bundle's folder, or what `gudgeon pack` makes"
            ) from error


def remove(registry: Registry, path: str, now: datetime) -> None:
    """Name it no more; devices that run it go on, and no device takes it up again."""
    with registry.locked():
        role = path.partition("/")[0]
        if role not in DELEGATED or path not in registry.newest()[role].signed.targets:
            raise UsageError(f"target {path!r}: not in the registry; see `gudgeon repo status`")
        draft = next_version(role, registry.published().get(role), registry.staged_document(role), now)
        del draft.signed.targets[path]
        stage(registry, role, draft)


def targets_of(registry: Registry, published_only: bool = False) -> dict[str, Target]:
    """Path → what is named for it, staged or published."""
    documents = registry.published() if published_only else registry.newest()
    return {
        path: parse_target(path, entry.length, entry.hashes.get("sha256"), entry.custom)
        for role in DELEGATED if role in documents
        for path, entry in documents[role].signed.targets.items()
    }  # fmt: skip


def highest_index(registry: Registry) -> int:
    return max((t.index for only in (True, False) for t in targets_of(registry, only).values()), default=0)


def _copy(registry: Registry, source: Path) -> tuple[int, str, Path]:
    """Into the folder of targets, under a name that nobody asks for; on the disk when this returns."""
    temporary = registry.targets / f".new.{os.getpid()}"
    with disk_errors(source):
        registry.targets.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        if source.is_dir():
            try:
                return *archive.pack_file(source, temporary), temporary
            except archive.ArchiveError as error:
                temporary.unlink(missing_ok=True)
                raise DataError(str(error)) from error
        digest, length = hashlib.sha256(), 0
        with source.open("rb") as file, temporary.open("xb") as copy:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                copy.write(chunk)
                length += len(chunk)
                if length > LONGEST_BYTES:
                    raise UsageError(f"{source}: larger than {LONGEST_BYTES} bytes")
            copy.flush()
            os.fsync(copy.fileno())
    return length, digest.hexdigest(), temporary


def _keep(registry: Registry, temporary: Path, target: Target) -> None:
    place = registry.targets / target.file
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(place)
        for folder in (place.parent, place.parent.parent, registry.targets):
            sync_folder(folder)
