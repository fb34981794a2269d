"""Each record names the hash of the one before it: what is new is checked against its neighbours, by sequence number and
not by order of arrival. A record that does not fit is kept, as evidence, and told as a finding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, insert, text

from cloud.store import tables as t
from cloud.store.database import wanted
from cloud.store.spans import Key
from edge_runtime.wire.envelope import genesis, read_record, record_hash


class Stored(NamedTuple):
    """A record line and what it names as its predecessor."""

    line: bytes
    prev: str


class Broken(NamedTuple):
    """Record `seq` does not name the hash of the record before it."""

    seq: int
    detail: str


def check_links(known: Mapping[int, str], records: Mapping[int, Stored], fresh: Sequence[int]) -> Iterator[Broken]:
    """`records`: the fresh ones and what is known of their neighbours. `known`: hashes of numbers whose records are not there;
    0 is the predecessor of number 1."""
    for seq in sorted({s for n in fresh for s in (n, n + 1)}):
        here, before = records.get(seq), records.get(seq - 1)
        expected = record_hash(before.line) if before else known.get(seq - 1)
        if here is not None and expected is not None and here.prev != expected:
            yield Broken(seq, f"names {here.prev[:16]}… as its predecessor, which is {expected[:16]}…")


def verify(connection: Connection, fresh: Mapping[Key, Mapping[int, Stored]], now_ns: int) -> None:
    """Check what is new of each stream and keep what is found."""
    near = _neighbours(connection, fresh)
    gone = _pruned(connection, fresh, near)
    rows = []
    for key, records in fresh.items():
        known = {0: genesis(*key)} | gone.get(key, {})
        for broken in check_links(known, dict(records) | near[key], list(records)):
            rows.append(key._asdict() | broken._asdict() | {"kind": "broken_link", "at_ns": now_ns})
    if rows:
        connection.execute(insert(t.finding), rows)


def _neighbours(connection: Connection, fresh: Mapping[Key, Mapping[int, Stored]]) -> dict[Key, dict[int, Stored]]:
    """The records just before and just after those that are new."""
    borders = [(*key, n) for key, records in fresh.items() for n in _borders(records)]
    found: dict[Key, dict[int, Stored]] = {key: {} for key in fresh}
    w = wanted(connection, "device", "chain", "stream", seq=int)
    query = f"""SELECT e.device, e.chain, e.stream, e.seq, e.record FROM {w.table} w JOIN event e
        ON e.device = w.device AND e.chain = w.chain AND e.stream = w.stream AND e.seq = w.seq"""
    for device, chain, stream, seq, record in connection.execute(text(query), w.values(borders)):
        line = record.encode()
        found[Key(device, chain, stream)][seq] = Stored(line, read_record(line).prev)
    return found


def _pruned(
    connection: Connection, fresh: Mapping[Key, Mapping[int, Stored]], near: Mapping[Key, Mapping[int, Stored]]
) -> dict[Key, dict[int, str]]:
    """The hashes of the records just before, where those are no longer stored (`pruning`)."""
    missing = [
        (*key, n - 1)
        for key, records in fresh.items()
        for n in records
        if n > 1 and n - 1 not in records and n - 1 not in near[key]
    ]
    found: dict[Key, dict[int, str]] = {}
    if not missing:
        return found
    w = wanted(connection, "device", "chain", "stream", seq=int)
    query = f"""SELECT p.device, p.chain, p.stream, p.last, p.last_hash FROM {w.table} w JOIN pruned p
        ON p.device = w.device AND p.chain = w.chain AND p.stream = w.stream AND p.last = w.seq"""
    for device, chain, stream, seq, last_hash in connection.execute(text(query), w.values(missing)):
        found.setdefault(Key(device, chain, stream), {})[seq] = last_hash
    return found


def _borders(records: Mapping[int, Stored]) -> list[int]:
    return sorted({n + step for n in records for step in (-1, 1)} - set(records))
