"""What a registry is made of now: versions, expiry, who may sign, what is staged and how far its signatures are; and a check
of all that is published, as a device that begins with the first root would make it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.ngclient import FetcherInterface, Updater

from cloud.registry.artifacts import targets_of
from cloud.registry.counting import Count, counts
from cloud.registry.draft import above
from cloud.registry.folder import Document, Registry
from cloud.registry.keys import key_files
from cloud.registry.roles import ROLES
from edge_runtime.errors import DataError, UsageError
from edge_runtime.wire.target import assignment_key

SOON_DAYS = 30
CHUNK_BYTES = 1024 * 1024


def status(registry: Registry, now: datetime) -> dict[str, Any]:
    published, staged = registry.published(), registry.all_staged()
    newest = {**published, **staged}
    roles = {role: _role(role, published.get(role), newest, now) for role in ROLES if role in newest}
    return {
        "folder": str(registry.folder),
        "roles": roles,
        "staged": {role: _staged(document, counts(role, document, published, staged)) for role, document in staged.items()},
        "targets": {path: {**target.custom, "sha256": target.sha256, "length": target.length, "published": path in seen}
                    for seen in [targets_of(registry, published_only=True)]
                    for path, target in sorted(targets_of(registry).items())},
        "assignment_keys": _assignment_keys(newest),
        "online_keys": [f"{file.path.name} {file.id[:16]}" for file in key_files(registry.online)],
        "warnings": list(_warnings(roles, now)),
    }  # fmt: skip


def _role(role: str, published: Document | None, newest: dict[str, Document], now: datetime) -> dict[str, Any]:
    keys: list[str] = []
    threshold = 1
    if delegator := newest.get(above(role)):
        known = delegator.signed.get_delegated_role(role)
        keys, threshold = [keyid[:16] for keyid in known.keyids], known.threshold
    if published is None:
        return {"version": 0, "expires": None, "days_left": None, "keys": keys, "threshold": threshold}
    left = published.signed.expires - now
    return {
        "version": published.version, "expires": published.signed.expires.isoformat(),
        "days_left": round(left.total_seconds() / 86400, 1), "keys": keys, "threshold": threshold,
    }  # fmt: skip


def _staged(document: Document, found: list[Count]) -> dict[str, Any]:
    return {
        "version": document.version,
        "expires": document.signed.expires.isoformat(),
        "signatures": {
            counted.by: {
                "signed": sorted(keyid[:16] for keyid in counted.signed), "threshold": counted.threshold,
                "missing": counted.missing,
            }
            for counted in found
        },
    }  # fmt: skip


def _assignment_keys(newest: dict[str, Document]) -> list[str]:
    entries = newest["targets"].signed.targets.items() if "targets" in newest else ()
    return [path for path, entry in entries if assignment_key(path, entry.hashes.get("sha256"), entry.custom)]


def _warnings(roles: dict[str, dict[str, Any]], now: datetime) -> Iterator[str]:
    for role, told in roles.items():
        soon = min(SOON_DAYS, ROLES[role].days / 3)
        if told["days_left"] is not None and told["days_left"] < soon:
            what = "is signed anew by the cloud: is it running?" if ROLES[role].online else "stage and sign it anew"
            yield f"{role} {'expires' if told['days_left'] > 0 else 'EXPIRED'} on {told['expires'][:10]}: {what}"
        if len(told["keys"]) < told["threshold"] or (role == "root" and len(told["keys"]) == told["threshold"]):
            yield f"{role} has {len(told['keys'])} keys and needs {told['threshold']}: none may be lost"


def verify(registry: Registry, now: datetime) -> dict[str, Any]:
    """DataError names the first thing that a device would refuse."""
    registry.check()
    if "timestamp" not in registry.published():
        raise UsageError(f"{registry.folder}: nothing is published yet; `gudgeon repo status` tells who must sign")
    first = registry.root(1)
    with tempfile.TemporaryDirectory(prefix="gudgeon-verify-") as folder:
        try:
            updater = Updater(folder, "repository:/", fetcher=Files(registry.metadata), bootstrap=first.data)
            updater._trusted_set.reference_time = now
            updater.refresh()
            checked = [path for path in targets_of(registry, published_only=True) if _artifact(registry, updater, path)]
        except (RepositoryError, DownloadError, ValueError) as error:
            raise DataError(f"{registry.folder}: a device would refuse this repository: {error}") from error
    return {"roots": registry.published()["root"].version, "targets": len(checked), "valid": True}


def _artifact(registry: Registry, updater: Updater, path: str) -> bool:
    info = updater.get_targetinfo(path)
    if info is None:
        raise DataError(f"{path}: named by a role that may not name it")
    sha256, length = info.hashes["sha256"], 0
    folder, _, name = path.rpartition("/")
    place, digest = registry.targets / folder / f"{sha256}.{name}", hashlib.sha256()
    try:
        with place.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                length += len(chunk)
    except OSError as error:
        raise DataError(f"{place}: {error.strerror}; put the artifact back, or remove the target") from error
    if length != info.length or digest.hexdigest() != sha256:
        raise DataError(f"{place}: not what is signed; put the artifact back, or remove the target")
    return True


class Files(FetcherInterface):
    """For python-tuf: the published metadata as they lie there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._folder / url.rpartition("/")[2]
        if not path.exists():
            raise DownloadHTTPError(f"{path.name} is missing", 404)
        return iter([path.read_bytes()])
