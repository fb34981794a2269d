"""Actions, tokens and attributes of clients of the DDI routes, in the store.

- A device has one action under way at most. It follows what the rollouts want of the device (`reconcile`): what is wanted no
  more is withdrawn, and only when that has ended is the next offered.
- A client that says nothing to a withdrawal is not waited for longer than `CANCEL_NS`: some know of no such thing.
- What is installed is not offered again; what failed only by a newer assignment.
- A token is kept as its SHA-256 alone: it is 256 random bits, so that nothing slower is needed.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from cloud.ddi.actions import ACTIVE, TABLE, Action, Input, State
from cloud.messages import plain_text
from cloud.store import tables as t
from cloud.store.database import lock, merge, newest
from edge_runtime.machine import step
from edge_runtime.wire.assignment import Item

DETAILS_CHARS = 2000
ATTRIBUTES = 100
ATTRIBUTE_CHARS = 512
PIECE_BYTES = 1 << 20
CANCEL_NS = 3600 * 1_000_000_000


class Image(NamedTuple):
    """A file and its hashes; `sha1` and `md5` are for clients that know no other."""

    path: Path
    sha256: str
    sha1: str
    md5: str
    size_bytes: int


#: the file of a target, if its offline signature holds and its bytes are there
FileOf = Callable[[Item], Path | None]

KEEP_TOKEN = merge(t.ddi_token, ("device",), **newest("hash", "created_ns"))
KEEP_ATTRIBUTES = merge(t.ddi_attribute, ("device",), **newest("body", "at_ns"))


# ── tokens ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_token(connection: Connection, device: str, now_ns: int) -> str:
    """A new token of the device; the one before it holds no longer. It is told here once and never again."""
    token = secrets.token_urlsafe(32)
    connection.execute(KEEP_TOKEN, {"device": device, "hash": _hash(token), "created_ns": now_ns})
    return token


def drop_token(connection: Connection, device: str) -> bool:
    return connection.execute(delete(t.ddi_token).where(t.ddi_token.c.device == device)).rowcount > 0


def revoked(connection: Connection, device: str) -> bool:
    """Whether it was taken its identity: then no token speaks for it, that of a gateway neither."""
    return connection.execute(select(t.identity.c.revoked_ns).where(t.identity.c.device == device)).scalar() is not None


def token_fits(connection: Connection, device: str, token: str) -> bool:
    kept = connection.execute(select(t.ddi_token.c.hash).where(t.ddi_token.c.device == device)).scalar()
    return secrets.compare_digest(str(kept or ""), _hash(token)) and kept is not None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


# ── attributes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def attributes(connection: Connection, device: str) -> dict[str, str]:
    body = connection.execute(select(t.ddi_attribute.c.body).where(t.ddi_attribute.c.device == device)).scalar()
    return json.loads(body) if body else {}


def keep_attributes(connection: Connection, device: str, data: Mapping[str, str], mode: str, now_ns: int) -> None:
    """`mode`: merge, replace or remove. ValueError where they are too many or too long."""
    before = attributes(connection, device)
    after = {
        "merge": {**before, **data},
        "replace": dict(data),
        "remove": {k: v for k, v in before.items() if k not in data},
    }
    if mode not in after:
        raise ValueError(f"mode {mode[:40]!r}: expected merge, replace or remove")
    kept = after[mode]
    if len(kept) > ATTRIBUTES or any(len(k) > ATTRIBUTE_CHARS or len(v) > ATTRIBUTE_CHARS for k, v in kept.items()):
        raise ValueError(f"expected at most {ATTRIBUTES} attributes of {ATTRIBUTE_CHARS} characters")
    clean = {plain_text(k): plain_text(v) for k, v in kept.items()}
    connection.execute(KEEP_ATTRIBUTES, {"device": device, "body": json.dumps(clean), "at_ns": now_ns})


# ── actions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def reconcile(
    connection: Connection, device: str, item: Item | None, counter: int, image: Image | None, now_ns: int
) -> Action | None:
    """The action that is under way after what is wanted now; None where there is nothing to do. `item` of assignment `counter`,
    None where nothing is wanted; a paused rollout's (`go` = stage) offers nothing new and stops nothing. `image`: of the item,
    None where there is none that could be offered."""
    lock(connection, {device}, alone=False)
    last = newest_action(connection, device)
    if last and last.state is State.CANCELING and now_ns - last.updated_ns >= CANCEL_NS:
        last = _moved(connection, last, Input.GIVE_UP, now_ns)
    same = last is not None and item is not None and (last.target, last.sha256) == (item.target, item.sha256)
    if last and last.state in ACTIVE:
        if not same or item is None or item.go == "revert":
            return _moved(connection, last, Input.WITHDRAW, now_ns)
        last = _asked_again(connection, last, item, counter)
        return last if item.go == "activate" or last.state is not State.OPEN else None
    if item is None or item.go != "activate":
        return None
    if last and same and last.state is State.INSTALLED:
        _asked_again(connection, last, item, counter)
        return None
    if last and same and last.state is State.FAILED and counter <= last.counter:
        return None
    if image is None or image.sha256 != item.sha256:
        return None
    return _new(connection, device, item, counter, image, now_ns)


def report(
    connection: Connection,
    device: str,
    number: int,
    heard: Input | None,
    details: str,
    progress: tuple[int, int],
    now_ns: int,
) -> Action | None:
    """Take one feedback; the action after it, None where there is no such action of this device."""
    lock(connection, {device}, alone=False)
    action = one_action(connection, device, number)
    if action is None:
        return None
    values = {
        "details": plain_text(details)[:DETAILS_CHARS],
        "done": progress[0],
        "of": progress[1],
        "updated_ns": now_ns,
    }
    connection.execute(update(t.ddi_action).where(t.ddi_action.c.id == action.id).values(**values))
    return _moved(connection, action, heard, now_ns) if heard else one_action(connection, device, number)


def newest_action(connection: Connection, device: str) -> Action | None:
    c = t.ddi_action.c
    query = select(t.ddi_action).where(c.device == device).order_by(c.id.desc()).limit(1)
    return _action(connection.execute(query).mappings().one_or_none())


def installed(connection: Connection, device: str) -> Action | None:
    """By which action something was installed last."""
    c = t.ddi_action.c
    done = (c.device == device, c.state == State.INSTALLED.value)
    query = select(t.ddi_action).where(*done).order_by(c.updated_ns.desc(), c.id.desc()).limit(1)
    return _action(connection.execute(query).mappings().one_or_none())


def one_action(connection: Connection, device: str, number: int) -> Action | None:
    c = t.ddi_action.c
    query = select(t.ddi_action).where(c.device == device, c.id == number)
    return _action(connection.execute(query).mappings().one_or_none())


def _action(row: Any) -> Action | None:
    return None if row is None else Action(**{**row, "state": State(row["state"])})


def _asked_again(connection: Connection, action: Action, item: Item, counter: int) -> Action:
    """Another assignment, maybe of another rollout, asks for the same file."""
    if counter <= action.counter:
        return action
    values = {"counter": counter, "rollout": item.rollout}
    connection.execute(update(t.ddi_action).where(t.ddi_action.c.id == action.id).values(**values))
    return replace(action, counter=counter, rollout=item.rollout)


def _moved(connection: Connection, action: Action, event: Input, now_ns: int) -> Action:
    after = step(TABLE, action.state, event)
    if after is action.state:
        return action
    values = {"state": after.value, "updated_ns": now_ns}
    connection.execute(update(t.ddi_action).where(t.ddi_action.c.id == action.id).values(**values))
    return one_action(connection, action.device, action.id) or action


def image_of(path: Path) -> Image:
    """Read once for as long as it is the same file: an image has gigabytes, and a fleet asks for it."""
    found = path.stat()
    return _image(path, found.st_ino, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=32)
def _image(path: Path, inode: int, size_bytes: int, mtime_ns: int) -> Image:
    sums = [hashlib.sha256(), hashlib.sha1(usedforsecurity=False), hashlib.md5(usedforsecurity=False)]
    with path.open("rb") as source:
        while piece := source.read(PIECE_BYTES):
            for each in sums:
                each.update(piece)
    sha256, sha1, md5 = (each.hexdigest() for each in sums)
    return Image(path, sha256, sha1, md5, size_bytes)


def _new(connection: Connection, device: str, item: Item, counter: int, image: Image, now_ns: int) -> Action | None:
    values: dict[str, Any] = {
        "device": device, "target": item.target, "sha256": image.sha256, "sha1": image.sha1, "md5": image.md5,
        "size_bytes": image.size_bytes, "rollout": item.rollout, "counter": counter,
        "state": State.OPEN.value, "details": "", "done": 0, "of": 0, "created_ns": now_ns,
        "updated_ns": now_ns,
    }  # fmt: skip
    number = connection.execute(insert(t.ddi_action).values(**values).returning(t.ddi_action.c.id)).scalar_one()
    return one_action(connection, device, int(number))
