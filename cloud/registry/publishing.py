"""Publishing: staged versions that reached their thresholds, then snapshot and timestamp by the online keys.

What readers see changes at one instant, when `timestamp.json` is replaced: everything that it leads to lies there by then, on
the disk, under names that were not used before. A crash in between leaves files that nothing names; the next publication
writes them again. A new root takes effect by itself when it lies there, so it comes last, when all else is signed for the old
root and for the new one. The versions before are kept: readers are in the middle of them, and roots are needed for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Timestamp

from cloud.registry.counting import count, counts
from cloud.registry.draft import expiry
from cloud.registry.folder import Document, Registry
from cloud.registry.keys import key_files, load_signer
from cloud.registry.roles import DELEGATED, ONLINE, RENEW_BELOW, ROLES
from edge_runtime.durable import replace_file
from edge_runtime.errors import UsageError

Published = Mapping[str, int]


def publish(registry: Registry, now: datetime, old_keys_lost: bool = False) -> Published:
    """Role → version now published. UsageError names what is not signed enough. `old_keys_lost`: roles with new keys need
    not be signed by the old ones; until all is there, readers that come in between are refused and try again."""
    with registry.locked():
        before, staged = registry.published(), registry.all_staged()
        for role in [r for r in staged if r in before and staged[r].version == before[r].version]:
            _already_there(registry, role, staged.pop(role), before[role])
        if not staged and "timestamp" in before:
            return {role: document.version for role, document in before.items()}
        _check(before, staged, now, old_keys_lost)
        after = {**before, **staged}
        root = staged.get("root")
        if root and (old_keys_lost or "timestamp" not in before):
            _write(registry, "root", root)
        for role in [r for r in staged if r != "root"]:
            _write(registry, role, staged[role])
        roots = [document.signed for document in (before.get("root"), root) if document]
        _sign_online(registry, after, before, roots, now, snapshot=True)
        if root:
            _write(registry, "root", root)
        for role in staged:
            registry.staged_file(role).unlink()
        return {role: document.version for role, document in registry.published().items()}


def renew(registry: Registry, now: datetime, force: bool = False) -> list[str]:
    """Sign timestamp and, where it is due, snapshot anew; the roles that were."""
    with registry.locked():
        before = registry.published()
        if "timestamp" not in before:
            raise UsageError(
                f"{registry.folder}: nothing is published yet; `gudgeon repo status` tells what is missing"
            )
        due = [role for role in ONLINE if force or _is_due(role, before, now)]
        if due:
            _sign_online(registry, before, before, [before["root"].signed], now, snapshot="snapshot" in due)
        return ["snapshot", "timestamp"] if "snapshot" in due else due


def _is_due(role: str, before: Mapping[str, Document], now: datetime) -> bool:
    left = before[role].signed.expires - now
    enough = count("root", role, before[role], before["root"].signed).missing == 0
    return not enough or left.total_seconds() < RENEW_BELOW * ROLES[role].days * 24 * 3600


def _check(before: Mapping[str, Document], staged: Mapping[str, Document], now: datetime, old_keys_lost: bool) -> None:
    after = {**before, **staged}
    missing = [role for role in ("root", "targets", *DELEGATED) if role not in after]
    if missing:
        raise UsageError(f"not published: there is no {', '.join(missing)} yet")
    for role, document in staged.items():
        expected = before[role].version + 1 if role in before else 1
        if document.version != expected:
            raise UsageError(
                f"not published: {role} has version {document.version}, expected {expected}; stage it again"
            )
        for counted in counts(role, document, before, staged):
            lost = old_keys_lost and counted.by.startswith("published") and role != "root"
            if counted.missing and not lost:
                raise UsageError(
                    f"not published: {role} version {document.version} has {len(counted.signed)} of {counted.threshold} "
                    f"signatures that the {counted.by} asks for; sign it with `gudgeon sign`"
                )
    for role in ("root", "targets", *DELEGATED):
        if after[role].signed.expires <= now:
            raise UsageError(
                f"not published: {role} expired on {after[role].signed.expires:%Y-%m-%d}; stage and sign it anew"
            )
    for role in DELEGATED:
        if role not in staged and count("targets", role, after[role], after["targets"].signed).missing:
            raise UsageError(f"not published: {role} has new keys; `gudgeon repo stage … {role}` and sign it with them")
    if "targets" not in staged and count("root", "targets", after["targets"], after["root"].signed).missing:
        raise UsageError("not published: targets has new keys; `gudgeon repo stage … targets` and sign it with them")


def _already_there(registry: Registry, role: str, staged: Document, published: Document) -> None:
    """A publication was cut short after its last step but one."""
    if staged.data != published.data:
        raise UsageError(
            f"{registry.staged_file(role)}: version {staged.version} is published already, otherwise; stage it anew"
        )
    registry.staged_file(role).unlink()


def _write(registry: Registry, role: str, document: Document) -> None:
    replace_file(registry.version_file(role, document.version), document.data)


def _sign_online(
    registry: Registry,
    after: Mapping[str, Document],
    before: Mapping[str, Document],
    roots: Iterable[Root],
    now: datetime,
    snapshot: bool,
) -> None:
    """A new snapshot of `after` if asked for, and a new timestamp, signed for each of these roots."""
    roots, signers = list(roots), _signers(registry)
    names = after["snapshot"] if "snapshot" in before else None
    if snapshot:
        meta = {f"{role}.json": _meta(after[role]) for role in ("targets", *DELEGATED)}
        version = before["snapshot"].version + 1 if names else 1
        names = _signed("snapshot", Snapshot(version, expires=expiry("snapshot", now), meta=meta), roots, signers)
        _write(registry, "snapshot", names)
    assert names is not None
    version = before["timestamp"].version + 1 if "timestamp" in before else 1
    timestamp = Timestamp(version, expires=expiry("timestamp", now), snapshot_meta=_meta(names))
    _write(registry, "timestamp", _signed("timestamp", timestamp, roots, signers))


def _signed(role: str, signed: Any, roots: list[Root], signers: Mapping[str, CryptoSigner]) -> Document:
    metadata = Metadata(signed)
    for keyid in dict.fromkeys(k for root in roots for k in root.roles[role].keyids if k in signers):
        metadata.sign(signers[keyid], append=True)
    document = Document(metadata.to_bytes(), metadata)
    for root in roots:
        counted = count(f"root version {root.version}", role, document, root)
        if counted.missing:
            raise UsageError(
                f"{role}: {counted.missing} of {counted.threshold} online keys missing that {counted.by} asks for; "
                "put them into the folder `online`"
            )
    return document


def _signers(registry: Registry) -> dict[str, CryptoSigner]:
    return {file.id: load_signer(file.path) for file in key_files(registry.online)}


def _meta(document: Document) -> MetaFile:
    return MetaFile(document.version, len(document.data), {"sha256": hashlib.sha256(document.data).hexdigest()})


def utc_now() -> datetime:
    return datetime.now(UTC)
