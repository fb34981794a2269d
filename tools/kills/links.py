"""The hash chain in the cloud's database, followed record by record from the first to the last."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

from edge_runtime.wire.envelope import genesis, read_record, record_hash
from tools.chaos.cloud_rows import reading


class Links(NamedTuple):
    """`gaps`: numbers that are missing between 1 and the last."""

    records: int
    broken: int
    gaps: int


def follow(database: Path, device: str) -> Links:
    with reading(database) as connection:
        found = connection.execute(
            "SELECT chain, stream, seq, record FROM event WHERE device = ? ORDER BY chain, stream, seq", (device,)
        )
        return _follow(found, device)


def _follow(rows: sqlite3.Cursor, device: str) -> Links:
    records = broken = gaps = 0
    stream, seq, newest = ("", ""), 0, ""
    for chain, name, number, record in rows:
        if (chain, name) != stream:
            stream, seq, newest = (chain, name), 0, genesis(device, chain, name)
        line = record.encode()
        event = read_record(line)
        gaps += number - seq - 1
        broken += (event.chain, event.stream, event.seq) != (*stream, number)
        broken += number == seq + 1 and event.prev != newest
        records, seq, newest = records + 1, number, record_hash(line)
    return Links(records, broken, gaps)
