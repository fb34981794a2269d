"""Each record names the hash of the one before it: what is new is checked against its neighbours, by sequence number and
not by order of arrival. A record that does not fit is kept, as evidence, and told as a finding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, insert, select

from cloud.store import tables as t
from edge_runtime.wire.envelope import genesis, read_record, record_hash

CHUNK = 500


class Stored(NamedTuple):
    """A record line and what it names as its predecessor."""

    line: bytes
    prev: str


class Broken(NamedTuple):
    """Record `seq` does not name the hash of the record before it."""

    seq: int
    detail: str


def check_links(start: str, records: Mapping[int, Stored], fresh: Sequence[int]) -> Iterator[Broken]:
    """`records`: the fresh ones and what is known of their neighbours. `start` is the predecessor of number 1."""
    for seq in sorted({s for n in fresh for s in (n, n + 1)}):
        here, before = records.get(seq), records.get(seq - 1)
        expected = start if seq == 1 else record_hash(before.line) if before else None
        if here is not None and expected is not None and here.prev != expected:
            yield Broken(seq, f"names {here.prev[:16]}… as its predecessor, which is {expected[:16]}…")


def verify(connection: Connection, where: tuple[str, str, str], fresh: Mapping[int, Stored], now_ns: int) -> int:
    """Check what is new of (device, chain, stream) and keep what is found; how many links are broken."""
    borders = sorted({n + step for n in fresh for step in (-1, 1)} - set(fresh))
    records = dict(fresh) | _neighbours(connection, where, borders)
    found = list(check_links(genesis(*where), records, list(fresh)))
    device, chain, stream = where
    names = {"device": device, "chain": chain, "stream": stream, "kind": "broken_link", "at_ns": now_ns}
    if found:
        connection.execute(insert(t.finding), [names | {"seq": b.seq, "detail": b.detail} for b in found])
    return len(found)


def _neighbours(connection: Connection, where: tuple[str, str, str], seqs: Sequence[int]) -> dict[int, Stored]:
    e = t.event.c
    here = (e.device == where[0], e.chain == where[1], e.stream == where[2])
    found: dict[int, Stored] = {}
    for i in range(0, len(seqs), CHUNK):
        query = select(e.seq, e.record).where(*here, e.seq.in_(seqs[i : i + CHUNK]))
        for seq, record in connection.execute(query):
            line = record.encode()
            found[seq] = Stored(line, read_record(line).prev)
    return found
