"""The next version of an offline role: made without any signature, to be signed by its holders.

Each function returns the metadata of a version one above the published one; what is staged already is changed further, and
its signatures are dropped, since they were made over something else.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, TargetFile, Targets

from cloud.registry.folder import Document
from cloud.registry.roles import DELEGATED, OFFLINE, ROLES, ROOT_THRESHOLD
from edge_runtime.errors import UsageError
from edge_runtime.wire.target import ASSIGNMENT_KEYS, ASSIGNMENT_KEYS_LIMIT, assignment_key_path

Draft = Metadata[Any]


def expiry(role: str, now: datetime) -> datetime:
    return now.replace(microsecond=0) + timedelta(days=ROLES[role].days)


def first_root(keys: Mapping[str, Iterable[Key]], now: datetime) -> Draft:
    """`keys`: of root, targets, snapshot and timestamp. Two of the root's must sign (one, where there is one only)."""
    root = Root(expires=expiry("root", now), consistent_snapshot=True)
    for role, holders in keys.items():
        for key in holders:
            root.add_key(key, role)
    root.roles["root"].threshold = min(ROOT_THRESHOLD, len(root.roles["root"].keyids))
    return Metadata(root)


def first_targets(keys: Mapping[str, Iterable[Key]], now: datetime) -> dict[str, Draft]:
    """The top-level targets with their delegations, and an empty version of each of these."""
    top = Targets(expires=expiry("targets", now))
    top.delegations = Delegations({}, {name: DelegatedRole(name, [], 1, True, [f"{name}/*/*"]) for name in DELEGATED})
    for name in DELEGATED:
        for key in keys[name]:
            top.add_key(key, name)
    empty = {name: Metadata(Targets(expires=expiry(name, now))) for name in DELEGATED}
    return {"targets": Metadata(top), **empty}


def next_version(role: str, published: Document | None, staged: Document | None, now: datetime) -> Draft:
    """To be changed; as it is, the same content for a new time."""
    if role not in OFFLINE:
        raise UsageError(f"{role} is signed online; `gudgeon repo renew` signs it anew")
    begun = staged or published
    if begun is None:
        raise UsageError(f"{role}: nothing is published or staged; begin with `gudgeon repo init`")
    draft = Metadata(deepcopy(begun.signed))
    draft.signed.version = published.version + 1 if published else 1
    draft.signed.expires = expiry(role, now)
    return draft


def change_keys(draft: Draft, role: str, add: Iterable[Key], remove: Iterable[str], threshold: int | None) -> None:
    """In the root, or in the targets for a delegated role. A threshold that the keys cannot reach is refused."""
    signed = draft.signed
    for keyid in remove:
        try:
            signed.revoke_key(keyid, role)
        except ValueError as error:
            raise UsageError(f"{role} has no key {keyid[:16]}; see `gudgeon repo status`") from error
    for key in add:
        signed.add_key(key, role)
    known = signed.get_delegated_role(role)
    known.threshold = threshold or known.threshold
    if not 1 <= known.threshold <= len(known.keyids):
        raise UsageError(f"{role} would have {len(known.keyids)} keys and need {known.threshold}; add keys first")


def name_assignment_key(draft: Draft, raw: bytes) -> None:
    named = [path for path in draft.signed.targets if path.startswith(ASSIGNMENT_KEYS)]
    if len(named) >= ASSIGNMENT_KEYS_LIMIT:
        raise UsageError(
            f"{len(named)} assignment keys are named, the limit is {ASSIGNMENT_KEYS_LIMIT}; remove one first"
        )
    text = base64.b64encode(raw).decode()
    path = assignment_key_path(raw)
    entry = TargetFile.from_data(path, f"{text}\n".encode(), ["sha256"])
    entry.unrecognized_fields["custom"] = {"public": text}
    draft.signed.targets[path] = entry


def above(role: str) -> str:
    """Which role's metadata have this role's keys."""
    return "targets" if role in DELEGATED else "root"
