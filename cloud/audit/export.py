"""The whole audit log as a file that can be checked anywhere, with nothing but the cloud's public key.

One line of JSON each: the header, signed, which tells the last row; where it does not begin at the first row, the signed word
after which one; every row, byte for byte what its hash is made over; every checkpoint. A line is bounded, a file is read as a
stream. The files of an archive are such files, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Engine

from cloud.audit.checkpoint import (
    ARCHIVE,
    BEGINNING,
    Checkpoint,
    archived,
    begins,
    kept,
    read_checkpoint,
    signed_pair,
)
from cloud.audit.log import newest, rows
from cloud.audit.row import AuditRow, read_row
from cloud.audit.verify import Report, check
from edge_runtime.durable import disk_errors
from edge_runtime.errors import DataError

LINE_BYTES = 64 * 1024


def lines(engine: Engine, key: Ed25519PrivateKey, now_ns: int, up_to: Checkpoint | None = None) -> Iterator[bytes]:
    """The file, line by line: what is in the store, up to that row or to the newest."""
    with engine.connect() as connection:
        last, before = newest(connection), archived(connection)[-1:]
        begin, _ = begins(connection, key.public_key())
        made = up_to or (Checkpoint(last.seq, last.digest(), now_ns) if last else begin._replace(at_ns=now_ns))
        yield json.dumps({"export": made.sealed(key)}).encode()
        for _, message in before:
            yield json.dumps({"archived": message}).encode()
        for row, _ in rows(connection, limit=made.seq - begin.seq):
            yield row.line()
        for message in kept(connection, up_to=made.seq):
            yield json.dumps({"checkpoint": message}).encode()


def look(path: Path, key: Ed25519PublicKey, known: list[str]) -> Report:
    """Check an export, also against checkpoints that are `known` from elsewhere; DataError where it is none. `archived` of the
    report: after which row it begins."""
    with disk_errors(path), path.open("rb") as file:
        header = _message(_line(file), "export")
        if header is None:
            raise DataError(f"{path}: not an audit export; make one with gudgeon audit export")
        start, begin, wrong = file.tell(), BEGINNING, list[str]()
        if (message := _message(_line(file), "archived")) is not None:
            start = file.tell()
            try:
                begin = read_checkpoint(message, key, ARCHIVE)
            except ValueError as error:
                wrong = [f"what says that it does not begin at row 1: {error}"]
        file.seek(start)
        behind = [m for m in (_message(line, "checkpoint") for line in iter(lambda: _line(file), b"")) if m]
        file.seek(start)
        pairs = [*wrong, *(signed_pair(m, key) for m in (header, *behind, *known))]
        return check(_rows(path, file), pairs, begin.seq, begin.hash)._replace(archived=begin.seq)


def _rows(path: Path, file: BinaryIO) -> Iterator[tuple[AuditRow, None]]:
    while line := _line(file):
        if _message(line, "checkpoint") is None:
            try:
                yield read_row(line), None
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}: a line is neither a row nor a checkpoint: {error}") from error


def _line(file: BinaryIO) -> bytes:
    return file.readline(LINE_BYTES)


def _message(line: bytes, name: str) -> str | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    found = value.get(name) if isinstance(value, dict) and set(value) == {name} else None
    return found if isinstance(found, str) else None
