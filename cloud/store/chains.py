"""Each record names the hash of the one before it: what is new is checked against its neighbours, by sequence number and
not by order of arrival. A record that does not fit is kept, as evidence, and told as a finding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, insert

from cloud.store import tables as t
from cloud.store.database import statement, wanted
from cloud.store.intervals import Span, runs
from cloud.store.spans import Key
from edge_runtime.wire.envelope import Event, genesis, read_record, record_hash

#: an Event and its line
Pair = tuple[Event, bytes]


class Broken(NamedTuple):
    """Record `seq` does not name the hash of the record before it."""

    seq: int
    detail: str


def check_links(known: Mapping[int, str], fresh: Mapping[int, Pair], near: Mapping[int, Pair]) -> Iterator[Broken]:
    """`near`: the records that are there next to the fresh ones. `known`: hashes of numbers whose records are not there; 0 is
    the predecessor of number 1."""
    for seq, found in known.items():
        if seq + 1 in fresh and fresh[seq + 1][0].prev != found:
            yield _broken(seq + 1, fresh[seq + 1][0].prev, found)
    there = {**near, **fresh}
    for seq, (_, line) in there.items():
        after = there.get(seq + 1)
        if after is not None and (seq in fresh or seq + 1 in fresh) and after[0].prev != (found := record_hash(line)):
            yield _broken(seq + 1, after[0].prev, found)


def _broken(seq: int, named: str, found: str) -> Broken:
    return Broken(seq, f"names {named[:16]}… as its predecessor, which is {found[:16]}…")


def verify(connection: Connection, fresh: Mapping[Key, Mapping[int, Pair]], now_ns: int) -> None:
    """Check what is new of each stream, in the order of its numbers, and keep what is found."""
    new = {key: runs(list(records)) for key, records in fresh.items()}
    near = _neighbours(connection, new)
    gone = _pruned(connection, new, near)
    rows = []
    for key, records in fresh.items():
        known = {0: genesis(*key)} | gone.get(key, {})
        for broken in sorted(check_links(known, records, near[key])):
            rows.append(key._asdict() | broken._asdict() | {"kind": "broken_link", "at_ns": now_ns})
    if rows:
        connection.execute(insert(t.finding), rows)


def _neighbours(connection: Connection, new: Mapping[Key, Sequence[Span]]) -> dict[Key, dict[int, Pair]]:
    """The records just before and just after those that are new."""
    borders = [(*key, n) for key, spans in new.items() for s in spans for n in (s.first - 1, s.last + 1)]
    found: dict[Key, dict[int, Pair]] = {key: {} for key in new}
    w = wanted(connection, "device", "chain", "stream", seq=int)
    query = f"""SELECT e.device, e.chain, e.stream, e.seq, e.record FROM {w.table} w JOIN event e
        ON e.device = w.device AND e.chain = w.chain AND e.stream = w.stream AND e.seq = w.seq"""
    for device, chain, stream, seq, record in connection.execute(statement(query), w.values(borders)):
        line = record.encode()
        found[Key(device, chain, stream)][seq] = (read_record(line), line)
    return found


def _pruned(
    connection: Connection, new: Mapping[Key, Sequence[Span]], near: Mapping[Key, Mapping[int, Pair]]
) -> dict[Key, dict[int, str]]:
    """The hashes of the records just before, where those are no longer stored (`pruning`)."""
    befores = ((key, s.first - 1) for key, spans in new.items() for s in spans)
    missing = [(*key, n) for key, n in befores if n and n not in near[key]]
    found: dict[Key, dict[int, str]] = {}
    if not missing:
        return found
    w = wanted(connection, "device", "chain", "stream", seq=int)
    query = f"""SELECT p.device, p.chain, p.stream, p.last, p.last_hash FROM {w.table} w JOIN pruned p
        ON p.device = w.device AND p.chain = w.chain AND p.stream = w.stream AND p.last = w.seq"""
    for device, chain, stream, seq, last_hash in connection.execute(statement(query), w.values(missing)):
        found.setdefault(Key(device, chain, stream), {})[seq] = last_hash
    return found
