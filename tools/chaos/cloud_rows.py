"""What the cloud's database holds of one device, read straight from the file: nobody's word is taken for it."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from tools.chaos.ledger import Arrived, Cloud, Identity, ShedRange
from tools.chaos.producer import body_hash

BUSY_S = 10.0


@contextmanager
def reading(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=BUSY_S)) as connection:
        yield connection


def read_cloud(database: Path, device: str) -> Cloud:
    """Everything of the device that the producer made (its bodies carry `n`)."""
    with reading(database) as connection:
        parts = connection.execute("SELECT part_epoch, part_seq FROM decision WHERE device = ?", (device,)).fetchall()
        counted = connection.execute(
            "SELECT coalesce(sum(value), 0) FROM tally WHERE device = ? AND name = 'kind:decision'", (device,)
        ).fetchone()[0]
        shed = connection.execute("SELECT chain, stream, first, last, every FROM shed WHERE device = ?", (device,))
        ranges = [ShedRange(*row) for row in shed.fetchall()]
        rows = list(_rows(connection, device))
        found = connection.execute("SELECT kind, stream, seq, detail FROM finding WHERE device = ?", (device,))
        findings = [f"{kind} at {stream} {seq}: {detail}" for kind, stream, seq, detail in found.fetchall()]
    return Cloud(rows, ranges, int(counted), Counter(parts), findings)


def _rows(connection: sqlite3.Connection, device: str) -> Iterator[Arrived]:
    found = connection.execute("SELECT chain, stream, seq, wall_ns, record FROM event WHERE device = ?", (device,))
    for chain, stream, seq, wall_ns, record in found:
        body = json.loads(record)["body"]
        if "n" in body:
            yield Arrived(Identity(chain, stream, seq), body["n"], body_hash(body), wall_ns)


def heads(database: Path, device: str) -> Mapping[tuple[str, str], int]:
    """(chain, stream) → the sequence number up to which everything is settled; cheap enough to ask often."""
    with reading(database) as connection:
        found = connection.execute("SELECT chain, stream, head FROM stream_head WHERE device = ?", (device,))
        return {(chain, stream): head for chain, stream, head in found.fetchall()}


def count(database: Path, device: str, since_ns: int = 0) -> int:
    """Rows that the device made after `since_ns` of its wall clock."""
    query = "SELECT count(*) FROM event WHERE device = ? AND wall_ns > ?"
    with reading(database) as connection:
        return int(connection.execute(query, (device, since_ns)).fetchone()[0])
