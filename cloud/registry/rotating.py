"""Other keys for a role, staged: in the metadata of the role above it, with the next version of the role itself beside it.

An online role gets a new key of its own in the place of the old; so does the assignment key, beside the old one, which is
removed later, when all devices have refreshed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from securesystemslib.signer import Key

from cloud.registry import draft, making
from cloud.registry.folder import Registry
from cloud.registry.roles import OFFLINE, ONLINE
from cloud.registry.signing import stage
from edge_runtime.errors import UsageError
from edge_runtime.wire.target import ASSIGNMENT_KEYS


def rotate(
    registry: Registry,
    role: str,
    now: datetime,
    add: Iterable[Key] = (),
    remove: Sequence[str] = (),
    threshold: int | None = None,
) -> None:
    """`remove`: beginnings of key ids, or of paths of assignment keys."""
    holder = "targets" if role == making.ASSIGNMENT else draft.above(role)
    with registry.locked():
        made = draft.next_version(holder, registry.published().get(holder), registry.staged_document(holder), now)
        if role == making.ASSIGNMENT:
            _rotate_assignment(registry, made, remove)
        else:
            _rotate_role(registry, made, role, list(add), remove, threshold)
        stage(registry, holder, made)
        if role in OFFLINE and role != "root" and not registry.staged_document(role):
            stage(registry, role, draft.next_version(role, registry.published().get(role), None, now))


def _rotate_role(
    registry: Registry, made: draft.Draft, role: str, add: list[Key], remove: Sequence[str], threshold: int | None
) -> None:
    known = list(made.signed.get_delegated_role(role).keyids)
    gone = [_one(known, text) for text in remove]
    if role in ONLINE and not add and not remove:
        add, gone = [making.new_online_key(registry, role)], known
    draft.change_keys(made, role, add, gone, threshold)


def _rotate_assignment(registry: Registry, made: draft.Draft, remove: Sequence[str]) -> None:
    named = [path for path in made.signed.targets if path.startswith(ASSIGNMENT_KEYS)]
    if not remove:
        key = making.new_online_key(registry, making.ASSIGNMENT)
        draft.name_assignment_key(made, bytes.fromhex(key.keyval["public"]))
    for text in remove:
        prefix = text if text.startswith(ASSIGNMENT_KEYS) else ASSIGNMENT_KEYS + text
        del made.signed.targets[_one(named, prefix)]


def _one(known: Sequence[str], text: str) -> str:
    found = [name for name in known if text and name.startswith(text)]
    if len(found) != 1:
        raise UsageError(
            f"{text!r}: fits {len(found)} of {', '.join(k[:32] for k in known)}; expected the beginning of one"
        )
    return found[0]
