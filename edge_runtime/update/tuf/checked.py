"""python-tuf's `Updater`, with what it leaves to others: files that survive a power cut, and the version floor.

python-tuf writes without flushing to the disk, and remembers what it has seen only in those files: after they were lost it
takes an older repository, as signed as it ever was. Here every file is flushed before it counts, and before any is written
its version is held against the floor. Four inner methods of python-tuf are replaced; `tests/test_checked.py` says so when
a new version of it has them no more.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tuf.api import exceptions
from tuf.api.metadata import Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from edge_runtime.durable import disk_errors, replace_file, sync_folder
from edge_runtime.errors import BundleError, EndpointError
from edge_runtime.update.tuf.floor import NAME_LIMIT, ROLES_LIMIT, Floor, Signers
from edge_runtime.update.tuf.keyprint import key_print
from edge_runtime.update.tuf.source import MissingError, Source

BASE = "repository:/"
CONFIG = UpdaterConfig(
    max_root_rotations=256,
    max_delegations=32,
    root_max_length=512_000,
    timestamp_max_length=16 * 1024,
    snapshot_max_length=256 * 1024,
    targets_max_length=2 * 1024 * 1024,
)

logging.getLogger("tuf").setLevel(logging.WARNING)


class CheckedUpdater(Updater):
    """One refresh. `floor` is that of the newest root seen; `seen()` is what it has become."""

    def __init__(self, folder: Path, root: bytes, source: Source, floor: Floor, now_ns: int) -> None:
        """`root`: the bytes that trust begins with. BundleError where they are no valid root metadata."""
        self._floor = floor
        with told("the trusted root"):
            super().__init__(str(folder), BASE, fetcher=_Bounded(source), config=CONFIG, bootstrap=root)
        self._trusted_set.reference_time = datetime.fromtimestamp(now_ns // 10**9, UTC)

    def refresh(self) -> None:
        with told("metadata"):
            super().refresh()
            self._check(self._trusted_set.timestamp, self._trusted_set.snapshot)

    def look_up(self, path: str) -> TargetFile | None:
        with told(f"target {path[:200]!r}"):
            return self.get_targetinfo(path)

    @property
    def top_level(self) -> Targets:
        return self._trusted_set.targets

    @property
    def hash_prefixed(self) -> bool:
        return bool(self._trusted_set.root.consistent_snapshot)

    def seen(self) -> Floor:
        """The floor, raised by what was verified, also where a later step failed."""
        trusted, floor = self._trusted_set, self._under_root()
        if Timestamp.type in trusted:
            floor = floor.raised(timestamp=trusted.timestamp.version)
        if Snapshot.type in trusted and _bounded(trusted.snapshot):
            floor = floor.raised(snapshot=trusted.snapshot.version, roles=_roles(trusted.snapshot))
        return floor

    def _under_root(self) -> Floor:
        root = self._trusted_set.root
        return self._floor.under(root.version, {role: _signers(root, role) for role in (Timestamp.type, Snapshot.type)})

    def _check(self, timestamp: Timestamp, snapshot: Snapshot | None) -> None:
        root, floor = self._trusted_set.root, self._under_root()
        older = [f"root version {root.version} is older than {floor.root}, which this device has seen"]
        older = older if root.version < floor.root else []
        older += floor.below(timestamp=timestamp.version)
        if snapshot and not _bounded(snapshot):
            raise BundleError(f"snapshot names more than {ROLES_LIMIT} roles, or one with a name too long; refused")
        if snapshot:
            older += floor.below(snapshot=snapshot.version, roles=_roles(snapshot))
        if older:
            raise BundleError(f"the repository was rolled back: {'; '.join(older[:3])}; refused")

    # ── in the place of python-tuf's own ────────────────────────────────────────────────────────────────────────────

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        trusted = self._trusted_set
        self._check(trusted.timestamp, trusted.snapshot if Snapshot.type in trusted else None)
        super()._persist_metadata(rolename, data)

    def _persist_root(self, version: int, data: bytes) -> None:
        folder = Path(self._dir)
        if not (folder / "root_history").is_dir():
            with disk_errors(folder):
                (folder / "root_history").mkdir(parents=True, exist_ok=True)
                sync_folder(folder)
                sync_folder(folder.parent)
        self._persist_file(str(folder / "root_history" / f"{version}.root.json"), data)

    def _persist_file(self, filename: str, data: bytes) -> None:
        path = Path(filename)
        with disk_errors(path):
            if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
                return
        replace_file(path, data)

    def _update_root_symlink(self) -> None:
        """`root.json`, for whoever looks there; nothing is read from it here."""
        link, to = Path(self._dir) / "root.json", f"root_history/{self._trusted_set.root.version}.root.json"
        with disk_errors(link):
            if link.is_symlink() and os.readlink(link) == to:
                return
            temporary = link.with_name(".root.json.tmp")
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(to)
            temporary.replace(link)
            sync_folder(link.parent)


class _Bounded(FetcherInterface):
    """A `Source` for python-tuf: whole files in memory, each within its limit, whatever the source gives."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self._source.chunks(url.removeprefix(BASE))

    def download_bytes(self, url: str, max_length: int) -> bytes:
        data = bytearray()
        try:
            for chunk in self._fetch(url):
                data += chunk
                if len(data) > max_length:
                    raise exceptions.DownloadLengthMismatchError(f"{_name(url)} is longer than {max_length} bytes")
        except MissingError as error:
            raise exceptions.DownloadHTTPError(f"{_name(url)} is not in the repository", 404) from error
        return bytes(data)


@contextmanager
def told(what: str) -> Iterator[None]:
    """python-tuf's errors as ours: BundleError for what is refused, EndpointError for what could not be had."""
    try:
        yield
    except exceptions.DownloadLengthMismatchError as error:
        raise BundleError(f"{what}: {error}; refused") from error
    except exceptions.ExpiredMetadataError as error:
        raise BundleError(
            f"{what}: {error}: nothing new is installed until it is signed anew (or this device's clock is right)"
        ) from error
    except exceptions.DownloadError as error:
        raise EndpointError(f"{what}: {error}; tried again later") from error
    except (exceptions.RepositoryError, ValueError) as error:
        cause = f" ({str(error.__cause__)[:200]})" if isinstance(error, DeserializationError) else ""
        raise BundleError(f"{what}: {error}{cause}; refused") from error


def _name(url: str) -> str:
    return url.removeprefix(BASE)[:200]


def _bounded(snapshot: Snapshot) -> bool:
    return len(snapshot.meta) <= ROLES_LIMIT and all(len(name) <= NAME_LIMIT for name in snapshot.meta)


def _roles(snapshot: Snapshot) -> dict[str, int]:
    return {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}


def _signers(root: Root, role: str) -> Signers:
    known = root.roles[role]
    return frozenset(key_print(root.keys[keyid]) for keyid in known.keyids if keyid in root.keys), known.threshold
