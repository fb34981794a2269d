"""The whole audit log as a file that can be checked anywhere, with nothing but the cloud's public key.

One line of JSON each: the header, signed, which tells the last row; every row, byte for byte what its hash is made over; every
checkpoint. A line is bounded, a file is read as a stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Engine

from cloud.audit.checkpoint import Checkpoint, kept, signed_pair
from cloud.audit.log import newest, rows
from cloud.audit.row import GENESIS, AuditRow, read_row
from cloud.audit.verify import Report, check
from edge_runtime.durable import disk_errors
from edge_runtime.errors import DataError

LINE_BYTES = 64 * 1024


def lines(engine: Engine, key: Ed25519PrivateKey, now_ns: int) -> Iterator[bytes]:
    """The file, line by line, up to the row that is the newest now."""
    with engine.connect() as connection:
        last = newest(connection)
        made = Checkpoint(last.seq, last.digest(), now_ns) if last else Checkpoint(0, GENESIS, now_ns)
        yield json.dumps({"export": made.sealed(key)}).encode()
        for row, _ in rows(connection, limit=made.seq):
            yield row.line()
        for message in kept(connection, up_to=made.seq):
            yield json.dumps({"checkpoint": message}).encode()


def look(path: Path, key: Ed25519PublicKey, known: list[str]) -> Report:
    """Check an export, also against checkpoints that are `known` from elsewhere; DataError where it is none."""
    with disk_errors(path), path.open("rb") as file:
        header = _message(_line(file), "export")
        if header is None:
            raise DataError(f"{path}: not an audit export; make one with gudgeon audit export")
        start = file.tell()
        behind = [m for m in (_message(line, "checkpoint") for line in iter(lambda: _line(file), b"")) if m]
        file.seek(start)
        return check(_rows(path, file), [signed_pair(m, key) for m in (header, *behind, *known)])


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
