"""Signed checkpoints: how long the chain was, and the hash of its last row.

- Before a checkpoint is signed, everything since the one before is checked: what was tampered with is never signed.
- The newest is also kept in a file beside the key (`anchor`), out of reach of whoever has the database alone. Copies of that file
  elsewhere make cutting off the end visible even where database and file are rolled back together.
- Rows since the newest checkpoint are held by nothing but the chain; the cloud signs every few seconds where there are any.
- Where the chain does not begin at its first row, a message of another kind says since which one, signed with the same key: only
  `cloud.audit.archive` makes those.
"""

from __future__ import annotations

import base64
import logging
import threading
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Connection, Engine, select, text

from cloud.audit.log import LOCK, rows
from cloud.audit.row import GENESIS
from cloud.audit.verify import Report, check
from cloud.store import tables as t
from cloud.store.database import WRITES, is_postgresql
from edge_runtime import log
from edge_runtime.clock import Clock
from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.errors import GudgeonError
from edge_runtime.identity import load_or_make
from edge_runtime.wire.signed import SIGNED_LIMIT_BYTES, canonical, read_fields, seal, signed_bytes, unseal

KIND, ARCHIVE, VERSION = "audit", "audit-archive", 1
EVERY_S = 5.0
FIELDS: dict[str, type] = {"seq": int, "hash": str, "at_ns": int}


class Checkpoint(NamedTuple):
    seq: int
    hash: str
    at_ns: int

    def sealed(self, key: Ed25519PrivateKey, kind: str = KIND) -> str:
        return seal(kind, canonical({"v": VERSION, **self._asdict()}), key.sign).decode()


BEGINNING = Checkpoint(0, GENESIS, 0)


def read_checkpoint(message: str, public: Ed25519PublicKey, kind: str = KIND) -> Checkpoint:
    """ValueError unless it is one of this kind that this key has signed."""
    sealed = unseal(message.encode(), "audit checkpoint")
    try:
        public.verify(sealed.signature, signed_bytes(kind, sealed.body))
    except InvalidSignature as error:
        raise ValueError("audit checkpoint: the signature does not fit the key") from error
    return Checkpoint(**read_fields(sealed.body, "audit checkpoint", VERSION, FIELDS))


def public_key(words: str) -> Ed25519PublicKey:
    """ValueError unless it is the base64 of an Ed25519 key."""
    return Ed25519PublicKey.from_public_bytes(base64.b64decode(words, validate=True))


def kept(connection: Connection, up_to: int = 2**63 - 1) -> list[str]:
    query = select(t.audit_checkpoint.c.message).where(t.audit_checkpoint.c.seq <= up_to)
    return [str(m) for m in connection.execute(query.order_by(t.audit_checkpoint.c.seq)).scalars()]


def archived(connection: Connection) -> list[tuple[str, str]]:
    """File and message of each archive, the oldest first."""
    a = t.audit_archive.c
    return [(str(row.file), str(row.message)) for row in connection.execute(select(a.file, a.message).order_by(a.seq))]


def begins(connection: Connection, key: Ed25519PublicKey) -> tuple[Checkpoint, list[str]]:
    """After which row the chain in the store begins, and what is wrong with the message that says so."""
    found = archived(connection)
    try:
        return (read_checkpoint(found[-1][1], key, ARCHIVE) if found else BEGINNING), []
    except ValueError as error:
        return BEGINNING, [f"what says that rows were archived: {error}"]


def anchored(anchor: Path) -> list[str]:
    """The checkpoint in the file, if there is one; bounded."""
    with disk_errors(anchor):
        if not anchor.exists():
            return []
        with anchor.open("rb") as file:
            return [file.read(SIGNED_LIMIT_BYTES).decode("utf-8", "replace")]


def look(engine: Engine, key: Ed25519PublicKey, anchor: Path | None, known: list[str] | None = None) -> Report:
    """Check the whole log in the store against its checkpoints, the anchor, and those that are `known` from elsewhere."""
    with engine.connect() as connection:
        begin, wrong = begins(connection, key)
        messages = kept(connection) + (anchored(anchor) if anchor else []) + (known or [])
        pairs = [*wrong, *(signed_pair(m, key) for m in messages)]
        return check(rows(connection), pairs, begin.seq, begin.hash)._replace(archived=begin.seq)


def signed_pair(message: str, key: Ed25519PublicKey) -> tuple[int, str] | str:
    """Number and hash, or what is wrong with it."""
    try:
        return read_checkpoint(message, key)[:2]
    except ValueError as error:
        return str(error)


def sign(engine: Engine, key: Ed25519PrivateKey, anchor: Path, now_ns: int) -> Checkpoint | None:
    """A checkpoint over what is new; None where nothing is. GudgeonError, and nothing signed, where the new rows do not fit."""
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        if is_postgresql(connection):
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        newest = connection.execute(
            select(t.audit_checkpoint.c.message).order_by(t.audit_checkpoint.c.seq.desc()).limit(1)
        ).scalar()
        messages = ([str(newest)] if newest else []) + anchored(anchor)
        known = [signed_pair(m, key.public_key()) for m in messages]
        begin, wrong = begins(connection, key.public_key())
        since = min((k[0] for k in known if not isinstance(k, str)), default=1)
        after, before = (since - 1, None if since > 1 else GENESIS) if since > begin.seq + 1 else begin[:2]
        report = check(rows(connection, after), [*wrong, *known], after, before)
        if report.findings:
            raise GudgeonError(
                f"the audit log was tampered with, nothing is signed: {report.findings[0]}; run gudgeon audit verify"
            )
        made = Checkpoint(report.last, report.hash, now_ns)
        if report.last > report.signed:
            values = {"seq": made.seq, "at_ns": now_ns, "message": made.sealed(key)}
            connection.execute(t.audit_checkpoint.insert().values(**values))
        elif not known or len(known) == 2:
            return None
    write_anchor(anchor, made.sealed(key))
    return made


def write_anchor(anchor: Path, message: str) -> None:
    replace_file(anchor, message.encode())


class Checkpointer:
    """Signs every few seconds in a thread of its own, and once more at the end."""

    def __init__(self, engine: Engine, key_file: Path, anchor: Path, clock: Clock) -> None:
        self._engine, self._key_file, self._anchor, self._clock = engine, key_file, anchor, clock
        self._stop = threading.Event()
        self._told = ""
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self.once()

    def once(self) -> None:
        """A refusal is told once, as long as it stays the same."""
        try:
            sign(self._engine, load_or_make(self._key_file), self._anchor, self._clock.wall_ns())
        except Exception as error:
            if str(error) != self._told:
                log.say(logging.ERROR, "no audit checkpoint", reason=str(error))
            self._told = str(error)
        else:
            self._told = ""

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self.once()
