"""A medium for devices without a network: the published metadata, the artifacts that are assigned, and a sealed assignment for
each device.

    <to>/metadata/              every root, and the newest version of each other role
    <to>/targets/               the artifacts that are named, and the keys of assignments
    <to>/assignments/<device>   two lines of `wire.signed`

It is the form that `/repo` has over the network, so a device checks it by the same rules and needs nothing else:
`gudgeon update --from`. Metadata and assignments expire; until when the medium is of use is told. Plain files only, so that any
file system does; the timestamp is written last, so that a medium that was pulled out in between is an old one or none.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cloud.registry.artifacts import targets_of
from cloud.registry.assigner import Assigner
from cloud.registry.folder import Document, Registry
from edge_runtime.durable import disk_errors, replace_file, sync_folder
from edge_runtime.errors import UsageError
from edge_runtime.wire.assignment import Item
from edge_runtime.wire.target import ASSIGNMENT_KEYS, Target, prefixed
from edge_runtime.wire.topics import SEGMENT

MARK = Path("metadata") / "timestamp.json"
FILES_LIMIT = 10_000


def export(
    registry: Registry,
    to: Path,
    devices: Sequence[str],
    items: Mapping[str, str],
    now: datetime,
    counter: int = 0,
    valid: timedelta = timedelta(days=7),
) -> dict[str, Any]:
    """`items`: slot set → path of a published target. `counter`: of the assignments, by default the seconds of now, as the cloud
    begins too. UsageError where something is not published, or `to` holds anything but an older export."""
    _check_place(to)
    if not devices or not items:
        raise UsageError("expected at least one --device and one --item SLOT_SET=TARGET")
    for device in devices:
        if not SEGMENT.fullmatch(device):
            raise UsageError(f"--device {device!r}: expected {SEGMENT.pattern}")
    assigner = Assigner(registry.folder)
    published = targets_of(registry, published_only=True)
    wanted = {slot_set: _target(published, path) for slot_set, path in items.items()}
    asked = {slot_set: Item(target.path, target.sha256) for slot_set, target in wanted.items()}
    now_ns = round(now.timestamp()) * 10**9
    number = counter or now_ns // 10**9
    with registry.locked():
        documents = registry.published()
        for target in wanted.values():
            _copy(registry.targets / target.file, to / "targets" / target.file, target.sha256)
        _copy_keys(registry, documents["targets"], to)
        for device in devices:
            sealed = assigner.seal(device, number, asked, now_ns, int(valid.total_seconds()) * 10**9)
            _write(to / "assignments" / device, sealed + b"\n")
        _write_metadata(registry, documents, to)
    until = min([now + valid, *(d.signed.expires for d in documents.values())])
    return {
        "to": str(to),
        "devices": list(devices),
        "counter": number,
        "targets": [target.path for target in wanted.values()],
        "bytes": sum(target.length for target in wanted.values()),
        "usable_until": until.isoformat(),
    }


def _check_place(to: Path) -> None:
    if to.is_dir() and any(to.iterdir()) and not (to / MARK).is_file():
        raise UsageError(f"{to}: not empty and not an earlier export; name a new folder")
    if to.exists() and not to.is_dir():
        raise UsageError(f"{to}: not a folder")


def _target(published: Mapping[str, Target], path: str) -> Target:
    if path not in published:
        raise UsageError(f"{path}: not in the published targets; see `gudgeon repo status`")
    return published[path]


def _copy_keys(registry: Registry, top: Document, to: Path) -> None:
    """They are files of the repository as well, for whoever asks for them there."""
    for path, entry in top.signed.targets.items():
        file = prefixed(path, entry.hashes.get("sha256", ""))
        if path.startswith(ASSIGNMENT_KEYS) and (registry.targets / file).is_file():
            _copy(registry.targets / file, to / "targets" / file, entry.hashes["sha256"])


def _write_metadata(registry: Registry, documents: Mapping[str, Document], to: Path) -> None:
    last = documents["root"].version
    for version in range(1, last + 1):
        _write(to / "metadata" / f"{version}.root.json", registry.root(version).data)
    for role, document in documents.items():
        if role not in ("root", "timestamp"):
            _write(to / "metadata" / f"{document.version}.{role}.json", document.data)
    _write(to / MARK, documents["timestamp"].data)


def _write(path: Path, data: bytes) -> None:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data)


def _copy(source: Path, path: Path, sha256: str) -> None:
    """Unless it is there already; on the medium when this returns. Read back, because sticks lie."""
    with disk_errors(path):
        if path.is_file() and _sha256(path) == sha256:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.part")
        with source.open("rb") as old, temporary.open("wb") as new:
            shutil.copyfileobj(old, new, 1024 * 1024)
            new.flush()
            os.fsync(new.fileno())
        found = _sha256(temporary)
        if found != sha256:
            temporary.unlink()
            raise UsageError(f"{path}: what was written cannot be read back; the medium is broken, take another")
        temporary.replace(path)
        sync_folder(path.parent)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
