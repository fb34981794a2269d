"""Signing a staged version by one of its holders. Signatures add up until the threshold is reached."""

from __future__ import annotations

from collections.abc import Iterable

from securesystemslib.signer import CryptoSigner

from cloud.registry.counting import Count, counts, may_sign
from cloud.registry.draft import Draft
from cloud.registry.folder import Document, Registry
from cloud.registry.roles import OFFLINE
from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.errors import UsageError


def stage(registry: Registry, role: str, draft: Draft) -> None:
    """Put a draft where it is signed; on the disk when this returns."""
    with disk_errors(registry.staged):
        registry.staged.mkdir(parents=True, exist_ok=True)
    replace_file(registry.staged_file(role), draft.to_bytes())


def sign_staged(registry: Registry, signer: CryptoSigner, roles: Iterable[str] = ()) -> dict[str, list[Count]]:
    """Sign what is staged of these roles (none named: of all that this key may sign); role → how far each is now.
    UsageError where the key may not sign a role that is named, or none at all."""
    published, staged, named = registry.published(), registry.all_staged(), tuple(roles)
    keyid, done = signer.public_key.keyid, {}
    for role in named or OFFLINE:
        document = staged.get(role)
        if document is None:
            if named:
                raise UsageError(f"{registry.staged_file(role)}: nothing is staged")
            continue
        allowed = may_sign(counts(role, document, published, staged))
        if keyid not in allowed:
            if named:
                raise UsageError(f"key {keyid[:16]} may not sign {role}; {', '.join(k[:16] for k in allowed)} may")
            continue
        document.metadata.sign(signer, append=True)
        stage(registry, role, document.metadata)
        staged[role] = Document(document.metadata.to_bytes(), document.metadata)
        done[role] = counts(role, staged[role], published, staged)
    if not done:
        raise UsageError(
            f"{registry.staged}: nothing is staged that key {keyid[:16]} may sign; see `gudgeon repo status`"
        )
    return done
