"""Rows that are old go into files, and out of the store; the chain goes on where they end.

- A file is an export (`cloud.audit.export`): signed, and checked again as it lies on the disk before a row is deleted.
- In one transaction the rows go, a signed message says since which row the chain goes on and with which hash, and a row of the
  chain itself names the file. So rows that are missing without such a message are found, and files that were changed, exchanged
  or left out do not join.
- The newest row that was signed always stays, so that what comes next is checked from there.
- A power cut leaves a file too many at worst; the next archive makes it anew.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Engine, delete, func, select, text

from cloud.access.roles import Actor
from cloud.audit import export
from cloud.audit.checkpoint import (
    ARCHIVE,
    BEGINNING,
    Checkpoint,
    anchored,
    archived,
    begins,
    kept,
    look,
    read_checkpoint,
    signed_pair,
)
from cloud.audit.log import LOCK, record, rows
from cloud.audit.verify import FINDINGS, Report
from cloud.store import tables as t
from cloud.store.database import WRITES, is_postgresql
from edge_runtime.durable import disk_errors, make_folder, sync_folder
from edge_runtime.errors import DataError, GudgeonError, ResourceError, UsageError

PIECE_BYTES = 1 << 20


class Segment(NamedTuple):
    """Rows `first` to `last` are in `file` now."""

    file: str
    first: int
    last: int
    sha256: str


def archive(
    engine: Engine, key: Ed25519PrivateKey, anchor: Path, folder: Path, by: Actor, before_ns: int, now_ns: int
) -> Segment | None:
    """Rows from before that moment; None where there are none that may go. GudgeonError where the log is not whole: then
    nothing is done."""
    report = look(engine, key.public_key(), anchor)
    if report.findings:
        raise GudgeonError(
            f"the audit log is not whole, nothing is archived: {report.findings[0]}; run gudgeon audit verify"
        )
    last = _last(engine, key.public_key(), anchor, before_ns, now_ns)
    if last is None:
        return None
    made = _write(engine, key, folder, report.archived + 1, last)
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        if is_postgresql(connection):
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        if begins(connection, key.public_key())[0].seq != report.archived:
            raise GudgeonError("another archive was made at the same time; this one changed nothing")
        message = last.sealed(key, ARCHIVE)
        values = {"seq": last.seq, "at_ns": now_ns, "file": made.file, "message": message}
        connection.execute(t.audit_archive.insert().values(**values))
        connection.execute(delete(t.audit).where(t.audit.c.seq <= last.seq))
        connection.execute(delete(t.audit_checkpoint).where(t.audit_checkpoint.c.seq <= last.seq))
        record(connection, by, "audit.archive", made.file, made._asdict(), now_ns=now_ns)
    return made


def _last(engine: Engine, key: Ed25519PublicKey, anchor: Path, before_ns: int, now_ns: int) -> Checkpoint | None:
    """The last row that may go: before the first that is too young, and before what the newest checkpoints hold."""
    c = t.audit.c
    with engine.connect() as connection:
        pairs = [signed_pair(m, key) for m in kept(connection)[-1:] + anchored(anchor)]
        signed = min((pair[0] for pair in pairs if not isinstance(pair, str)), default=0)
        young = connection.execute(select(func.min(c.seq)).where(c.at_ns >= before_ns)).scalar()
        seq = min(signed, signed if young is None else int(young)) - 1
        found = next(rows(connection, seq - 1, 1), None) if seq > 0 else None
    return Checkpoint(found[0].seq, found[1], now_ns) if found and found[0].seq == seq else None


def _write(engine: Engine, key: Ed25519PrivateKey, folder: Path, first: int, last: Checkpoint) -> Segment:
    path = folder / f"audit-{first:012d}-{last.seq:012d}.jsonl"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with disk_errors(path):
        make_folder(folder)
        try:
            digest = hashlib.sha256()
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                for line in export.lines(engine, key, last.at_ns, last):
                    file.write(line + b"\n")
                    digest.update(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
            _check_written(temporary, key.public_key(), first, last)
            temporary.replace(path)
            sync_folder(folder)
        finally:
            temporary.unlink(missing_ok=True)
    return Segment(path.name, first, last.seq, digest.hexdigest())


def _check_written(path: Path, key: Ed25519PublicKey, first: int, last: Checkpoint) -> None:
    report = export.look(path, key, [])
    if report.findings or (report.archived + 1, report.last, report.hash) != (first, last.seq, last.hash):
        told = report.findings[0] if report.findings else f"it ends at row {report.last}"
        raise DataError(f"{path}: not as it was written: {told}; nothing was archived")


def look_through(engine: Engine, key: Ed25519PublicKey, anchor: Path, folder: Path, known: list[str]) -> Report:
    """The whole chain from its first row: the files in `folder`, then the store."""
    with engine.connect() as connection:
        segments = archived(connection)
    count, findings, before = 0, list[str](), BEGINNING
    for name, message in segments:
        try:
            end = read_checkpoint(message, key, ARCHIVE)
        except ValueError:
            break  # `look` tells it
        found = _looked(folder / Path(name).name, key, before, end, known)
        count, findings, before = count + found.rows, findings + found.findings, end
    living = look(engine, key, anchor, known)
    findings = (findings + living.findings)[:FINDINGS]
    return living._replace(rows=count + living.rows, findings=findings, archived=0)


def _looked(path: Path, key: Ed25519PublicKey, before: Checkpoint, end: Checkpoint, known: list[str]) -> Report:
    within = [m for m in known if not isinstance(pair := signed_pair(m, key), str) and before.seq < pair[0] <= end.seq]
    nothing = Report(0, before.seq, before.hash, 0, [])
    if not path.is_file():
        return nothing._replace(findings=[f"rows {before.seq + 1} to {end.seq} are missing: there is no {path}"])
    try:
        found = export.look(path, key, within)
    except (DataError, ResourceError) as error:
        return nothing._replace(findings=[f"rows {before.seq + 1} to {end.seq}: {error}"])
    wrong = [f"{path.name}: {finding}" for finding in found.findings]
    if (found.archived, found.last, found.hash) != (before.seq, end.seq, end.hash):
        told = f"rows {found.archived + 1} to {found.last}"
        wrong.append(f"{path.name}: has {told}, not rows {before.seq + 1} to {end.seq} as they were archived")
    return found._replace(findings=wrong)


def check_known(known: list[str], key: Ed25519PublicKey, report: Report) -> None:
    """UsageError where one of these is of a row that was not looked at."""
    seqs = [pair[0] for m in known if not isinstance(pair := signed_pair(m, key), str)]
    if seqs and min(seqs) < report.archived:
        raise UsageError(f"--known: row {min(seqs)} is in an archive; add --archive FOLDER")
