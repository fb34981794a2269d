"""The registry's folder, and reading it.

    <folder>/repo/metadata/   published: N.root.json, N.targets.json, N.models.json …, N.snapshot.json, timestamp.json
    <folder>/repo/targets/    artifacts, as <path>/<sha256>.<name>
    <folder>/repo/deltas/     hints; see `registry.deltas`
    <folder>/staged/          the next versions of offline roles: made, signed by their holders, then published
    <folder>/online/          the keys of snapshot, timestamp and assignments (0600)

What `timestamp.json` names, and the roots up to the last without a gap, is what is published. Published files are never
changed, but for `timestamp.json`, which is replaced whole.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp

from cloud.registry.roles import OFFLINE, ROLES
from edge_runtime.durable import disk_errors
from edge_runtime.errors import DataError, UsageError

METADATA_LIMIT_BYTES = 2 * 1024 * 1024
TYPES: Mapping[str, type[Signed]] = {"root": Root, "snapshot": Snapshot, "timestamp": Timestamp}
S = TypeVar("S", bound=Signed)


@dataclass(frozen=True)
class Document:
    """One version of a role: its bytes and what they say. Its signatures are not looked at here."""

    data: bytes
    metadata: Metadata[Any]

    @property
    def signed(self) -> Any:
        return self.metadata.signed

    @property
    def version(self) -> int:
        return int(self.metadata.signed.version)


@dataclass(frozen=True)
class Registry:
    folder: Path

    @property
    def metadata(self) -> Path:
        return self.folder / "repo" / "metadata"

    @property
    def targets(self) -> Path:
        return self.folder / "repo" / "targets"

    @property
    def staged(self) -> Path:
        return self.folder / "staged"

    @property
    def online(self) -> Path:
        return self.folder / "online"

    def check(self) -> None:
        if not self.metadata.is_dir():
            raise UsageError(f"{self.folder}: not a registry; make one with `gudgeon repo init {self.folder}`")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One writer at a time: the ceremony and the cloud that renews."""
        self.check()
        with disk_errors(self.folder), (self.folder / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def staged_file(self, role: str) -> Path:
        return self.staged / f"{role}.json"

    def staged_document(self, role: str) -> Document | None:
        path = self.staged_file(role)
        return read_document(path, role) if path.exists() else None

    def all_staged(self) -> dict[str, Document]:
        found = {role: self.staged_document(role) for role in OFFLINE}
        return {role: document for role, document in found.items() if document}

    def version_file(self, role: str, version: int) -> Path:
        return self.metadata / ("timestamp.json" if role == "timestamp" else f"{version}.{role}.json")

    def root(self, version: int) -> Document:
        return read_document(self.version_file("root", version), "root")

    def newest_root(self) -> Document | None:
        version = 0
        while self.version_file("root", version + 1).exists():
            version += 1
        return self.root(version) if version else None

    def published(self) -> dict[str, Document]:
        """Role → what is published of it now; empty before the first publication."""
        root, path = self.newest_root(), self.metadata / "timestamp.json"
        if root is None or not path.exists():
            return {"root": root} if root else {}
        timestamp = read_document(path, "timestamp")
        found = {"root": root, "timestamp": timestamp}
        number = timestamp.signed.snapshot_meta.version
        found["snapshot"] = read_document(self.version_file("snapshot", number), "snapshot")
        for name, meta in found["snapshot"].signed.meta.items():
            role = name.removesuffix(".json")
            found[role] = read_document(self.version_file(role, meta.version), role)
        return found

    def newest(self) -> dict[str, Document]:
        """What will be published next: what is staged, else what is published."""
        return {**self.published(), **self.all_staged()}


def read_document(path: Path, role: str) -> Document:
    with disk_errors(path):
        if path.stat().st_size > METADATA_LIMIT_BYTES:
            raise DataError(f"{path}: larger than {METADATA_LIMIT_BYTES} bytes")
        data = path.read_bytes()
    return parse(data, role, str(path))


def parse(data: bytes, role: str, where: str) -> Document:
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise DataError(f"{where}: not signed metadata: {error}") from error
    if role not in ROLES or not isinstance(metadata.signed, TYPES.get(role, Targets)):
        raise DataError(f"{where}: is {metadata.signed.type}, expected {role}")
    return Document(data, metadata)
