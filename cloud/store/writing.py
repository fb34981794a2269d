"""The write side: everything that waits is committed in one transaction.

- An Event is stored once: a (device, chain, stream, seq) that was delivered before, which `spans` tells, is dropped, whatever
  it holds.
- Several workers may commit at once; the transactions of one device follow one another (`database.lock`).
- The projection, the counters and the heads change in the same transaction as the Events that they come from.
- `head` is the highest seq below which nothing is missing: delivered, given up as the device has stated, or below the
  lowest that it still holds. It is the only number that may be acknowledged.
- A commit takes the same few statements for one device and for a thousand.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, delete, insert, select, update

from cloud.messages import Batch, Connected, Item, Rejection, Status, json_text, plain_text
from cloud.store import assets, chains, spans, times, twin
from cloud.store import tables as t
from cloud.store.chains import Pair
from cloud.store.database import REJECTIONS, Added, EventRow, lock, merge, newest, one_by_one, statement, wanted
from cloud.store.projection import LATEST, LATEST_STREAMS, STREAM, count, fields
from cloud.store.spans import Key, Progress
from edge_runtime.wire.batch import Ack, Checkpoint, Shed
from edge_runtime.wire.envelope import Event
from edge_runtime.wire.topics import Place

REJECTIONS_KEPT = 1000

KEEP_CHAIN = merge(
    t.chain, ("device", "chain"), "chain.counter < excluded.counter", **newest("counter", "checkpoint", "signature")
)
SEE = merge(
    t.device,
    ("device",),
    boot_id="CASE WHEN excluded.boot_id = '' THEN device.boot_id ELSE excluded.boot_id END",
    **newest("online", "last_seen_ns", "place"),
)
SHED_KEYS = ("device", "chain", "stream", "policy", "first")
SHED_REST = [column.name for column in t.shed.columns if column.name not in SHED_KEYS]
KEEP_SHED = merge(t.shed, SHED_KEYS, "shed.id < excluded.id", **newest(*SHED_REST))
KEEP_LATEST = merge(  # a new chain begins at 1 again
    t.latest,
    ("device", "stream", "kind"),
    "latest.chain <> excluded.chain OR latest.seq < excluded.seq",
    **newest("seq", "wall_ns", "body", "chain"),
)
COUNT = merge(t.tally, ("device", "name"), value="tally.value + excluded.value")

#: the answer to each chain that sent something, and where it belongs
Acks = list[tuple[Place, Ack]]
Tallies = dict[str, Counter[str]]
Rows = list[dict[str, Any]]


@dataclass
class Sent:
    """What one chain has sent: its batches, and their records by stream and number. `came` counts repeats too."""

    batches: list[Batch]
    records: dict[str, dict[int, Pair]] = field(default_factory=lambda: defaultdict(dict))
    came: Counter[str] = field(default_factory=Counter)
    shed: dict[int, Shed] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for batch in self.batches:
            self.shed |= {s.id: s for s in batch.checkpoint.shed}
            self.came.update([e.stream for e in batch.events])
            for pair in zip(batch.events, batch.lines, strict=True):
                self.records[pair[0].stream].setdefault(pair[0].seq, pair)

    @property
    def place(self) -> Place:
        return self.batches[-1].place

    @property
    def newest(self) -> Batch:
        return max(self.batches, key=lambda b: b.checkpoint.counter)

    @property
    def checkpoint(self) -> Checkpoint:
        return self.newest.checkpoint

    def streams(self) -> list[Key]:
        """The streams that it is about."""
        names = dict.fromkeys([*self.records, *(s.stream for s in self.shed.values())])
        return [Key(self.place.device, self.checkpoint.chain, name) for name in names]


def commit(engine: Engine, items: Sequence[Item], now_ns: int) -> Acks:
    """Store all items in one transaction; what may be acknowledged once it has returned."""
    with engine.begin() as connection:
        return store(connection, items, now_ns)


def store(connection: Connection, items: Sequence[Item], now_ns: int) -> Acks:
    """The same within a transaction: what it returns is true once that is committed."""
    devices = {item.place.device for item in items if isinstance(item, Batch | Status)}
    lock(connection, devices, alone=any(isinstance(item, Connected) for item in items))
    tally: Tallies = defaultdict(Counter)
    _reject(connection, [item for item in items if isinstance(item, Rejection)], tally, now_ns)
    _see(connection, items, now_ns)
    sent = _pinned(connection, [item for item in items if isinstance(item, Batch)], tally, now_ns)
    acks = _store(connection, sent, tally, now_ns) if sent else []
    _count(connection, tally)
    return acks


def _store(connection: Connection, sent: Sequence[Sent], tally: Tallies, now_ns: int) -> Acks:
    clocks = times.learn(connection, [b for s in sent for b in s.batches], now_ns)
    _keep_shed(connection, sent)
    of = {key: s for s in sent for key in s.streams()}
    before = spans.load(connection, {key: s.records.get(key.stream, ()) for key, s in of.items()})
    fresh = {key: _fresh(s, key.stream, before[key]) for key, s in of.items()}
    for key, s in of.items():
        before[key].head = max(before[key].head, s.checkpoint.floor.get(key.stream, 1) - 1)
    chains.verify(connection, fresh, now_ns)
    added = Added(connection)
    new = _add(added, fresh, clocks, now_ns)
    _keep_latest(connection, [e for key, n in new.items() if key.stream in LATEST_STREAMS for e in n.events])
    _project(connection, {key: n for key, n in new.items() if key.stream == STREAM}, added, tally, now_ns)
    twin.settle(connection, [e for key, n in new.items() if key.stream == twin.STREAM for e in n.events])
    assets.keep(connection, [e for key, n in new.items() if key.stream in assets.STREAMS for e in n.events])
    added.flush()
    spans.save(connection, {key: (before[key], list(fresh[key])) for key in of})
    return [(s.place, _ack(s, before, now_ns)) for s in sent]


def _ack(s: Sent, after: Mapping[Key, Progress], now_ns: int) -> Ack:
    committed = {key.stream: after[key].head for key in s.streams()}
    islands = {key.stream: after[key].islands for key in s.streams()}
    c = s.checkpoint
    top = max(s.shed, default=0)
    return Ack(c.chain, committed, islands, top, c.counter, c.mono_ns, received_ns=now_ns, now_ns=now_ns)


# ── chains and devices ──────────────────────────────────────────────────────────────────────────────────────────────────


def _pinned(connection: Connection, batches: Sequence[Batch], tally: Tallies, now_ns: int) -> list[Sent]:
    """What may be stored, chain by chain. The key of a chain is the one that it came with first; a chain that comes under
    another is turned away."""
    together: dict[tuple[str, str], list[Batch]] = defaultdict(list)
    for batch in batches:
        together[batch.place.device, batch.checkpoint.chain].append(batch)
    c = t.chain.c
    known = {
        (row.device, row.chain): row
        for row in connection.execute(select(t.chain).where(c.device.in_({device for device, _ in together})))
    }
    accepted, foreign, findings = [], [], []
    for (device, chain), found in together.items():
        key = known[device, chain].key if (device, chain) in known else found[0].checkpoint.key
        other = next((b for b in found if b.checkpoint.key != key), None)
        if other is not None:
            findings.append((device, chain, "foreign_key", f"batch signed by {other.checkpoint.key}"))
            reason = f"chain {chain} of device {device} belongs to another key"
            foreign.append(Rejection(other.place.topic("events"), reason, len(other.header)))
            continue
        others = [row.key for (owner, _), row in known.items() if owner == device]
        if (device, chain) not in known and others and key not in others:
            findings.append((device, chain, "key_changed", f"new chain with the new key {key}"))
        accepted.append(Sent(found))
    names = ("device", "chain", "kind", "detail")
    rows = [dict(zip(names, found, strict=True)) | {"stream": "", "seq": 0, "at_ns": now_ns} for found in findings]
    if rows:
        connection.execute(insert(t.finding), rows)
    _reject(connection, foreign, tally, now_ns)
    _keep_chains(connection, accepted, now_ns)
    return accepted


def _keep_chains(connection: Connection, sent: Sequence[Sent], now_ns: int) -> None:
    """The newest checkpoint of each."""
    rows = [
        {
            "device": s.place.device, "chain": s.checkpoint.chain, "key": s.checkpoint.key, "first_seen_ns": now_ns,
            "counter": s.checkpoint.counter, "checkpoint": s.newest.header, "signature": s.newest.signature,
        }
        for s in sent
    ]  # fmt: skip
    if rows:
        connection.execute(KEEP_CHAIN, rows)


def _see(connection: Connection, items: Sequence[Item], now_ns: int) -> None:
    """A device that sends Events is online; one that sends a status is what the status says."""
    seen: dict[str, dict[str, Any]] = {}
    for item in items:
        if isinstance(item, Connected):
            connection.execute(update(t.device).values(online=False))
            for row in seen.values():
                row["online"] = False
        elif isinstance(item, Batch | Status):
            device = item.place.device
            row = seen.setdefault(device, {"device": device, "boot_id": ""})
            row["place"] = "/".join(list(vars(item.place).values())[:-1])
            row["online"] = item.online if isinstance(item, Status) else True
            row["boot_id"] = item.boot_id if isinstance(item, Status) else row["boot_id"]
    if seen:
        rows = [row | {"first_seen_ns": now_ns, "last_seen_ns": now_ns} for row in seen.values()]
        connection.execute(SEE, rows)


def _keep_shed(connection: Connection, sent: Sequence[Sent]) -> None:
    rows = [
        vars(s.shed[i]) | {"device": s.place.device, "chain": s.checkpoint.chain} for s in sent for i in sorted(s.shed)
    ]
    if rows:
        connection.execute(KEEP_SHED, rows)


# ── records ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class New(NamedTuple):
    """What is new of one stream, in order, and the `id` of each."""

    ids: Sequence[int]
    events: Sequence[Event]


def _fresh(s: Sent, stream: str, before: Progress) -> dict[int, Pair]:
    """What is not there yet of one stream, in order; repeats are counted."""
    by_seq = s.records.get(stream, {})
    fresh = {seq: by_seq[seq] for seq in before.fresh(by_seq)}
    before.duplicates += s.came[stream] - len(fresh)
    return fresh


def _add(
    added: Added, fresh: Mapping[Key, Mapping[int, Pair]], clocks: Mapping[str, times.Clocks], now_ns: int
) -> dict[Key, New]:
    """Rows of `event`."""
    ids, new = added.ids(sum(map(len, fresh.values()))), dict[Key, New]()
    for key, pairs in fresh.items():
        if pairs:
            events, lines = zip(*pairs.values(), strict=True)
            new[key] = New(ids[: len(events)], events)
            ids = ids[len(events) :]
            added.events += _event_rows(key, new[key], lines, clocks[key.device], now_ns)
    return new


def _event_rows(key: Key, new: New, lines: Iterable[bytes], clocks: times.Clocks, now_ns: int) -> Iterator[EventRow]:
    """Made column by column, as there are many."""
    _, _, _, seqs, boots, kinds, monos, walls, uncertainties, _, _ = zip(*new.events, strict=True)
    plain = {found: plain_text(found) for found in {*boots, *kinds}}
    of_stream, came = map(repeat, key), repeat(now_ns)
    names = [map(plain.__getitem__, found) for found in (boots, kinds)]
    stamps = zip(*map(clocks.time, new.events), strict=True)
    records = map(bytes.decode, lines)
    return zip(new.ids, *of_stream, seqs, *names, monos, walls, uncertainties, came, records, *stamps, strict=False)


def _project(connection: Connection, found: Mapping[Key, New], added: Added, tally: Tallies, now_ns: int) -> None:
    """Rows of `decision`, and the counters of devices."""
    columns = {key: fields([e.body for e in new.events]) for key, new in found.items()}
    parts = {key: Counter(_parts(c)) for key, c in columns.items()}
    seen = _seen(connection, parts)
    for key, new in found.items():
        kinds = [plain_text(e.kind) for e in new.events]
        counted = tally[key.device]
        count(kinds, columns[key], counted)
        for part, times_more in parts[key].items():
            times_before = seen[(key.device, key.chain, *part)]
            counted["parts"] += times_before == 0
            counted["duplicates"] += times_before < 2 <= times_before + times_more
        seqs, walls = [e.seq for e in new.events], [e.wall_ns for e in new.events]
        name = (repeat(key.device), repeat(key.chain))
        added.decisions += zip(new.ids, *name, seqs, kinds, *columns[key].values(), walls, repeat(now_ns))


def _parts(columns: Mapping[str, Sequence[Any]]) -> Iterator[tuple[int, int]]:
    """(part_epoch, part_seq) of every Event that says which part it is about."""
    return (part for part in zip(columns["part_epoch"], columns["part_seq"], strict=True) if None not in part)


def _seen(connection: Connection, parts: Mapping[Key, Iterable[tuple[int, int]]]) -> Counter[tuple[str, str, int, int]]:
    """How many Events each part near these already has."""
    ranges: dict[tuple[str, str, int], list[int]] = {}
    for key, of_key in parts.items():
        for epoch, seq in of_key:
            span = ranges.setdefault((key.device, key.chain, epoch), [seq, seq])
            span[:] = min(span[0], seq), max(span[1], seq)
    if not ranges:
        return Counter()
    w = wanted(connection, "device", "chain", epoch=int, low=int, high=int)
    query = f"""SELECT d.device, d.chain, d.part_epoch, d.part_seq, count(*) FROM {w.table} w JOIN decision d
        ON d.device = w.device AND d.chain = w.chain AND d.part_epoch = w.epoch AND d.part_seq BETWEEN w.low AND w.high
        GROUP BY d.device, d.chain, d.part_epoch, d.part_seq"""
    values = w.values((*place, *span) for place, span in ranges.items())
    return Counter({(row[0], row[1], row[2], row[3]): row[4] for row in connection.execute(statement(query), values)})


def _keep_latest(connection: Connection, events: Sequence[Event]) -> None:
    newest = {(e.device, e.stream, e.kind): e for e in events if (e.stream, e.kind) in LATEST}
    rows = [
        {
            "device": e.device, "stream": e.stream, "kind": e.kind, "seq": e.seq, "wall_ns": e.wall_ns,
            "body": json_text(dict(e.body)), "chain": e.chain,
        }
        for e in newest.values()
    ]  # fmt: skip
    if rows:
        connection.execute(KEEP_LATEST, rows)


# ── counters and rejected messages ──────────────────────────────────────────────────────────────────────────────────────


def _count(connection: Connection, tally: Tallies) -> None:
    rows = [{"device": d, "name": name, "value": n} for d in sorted(tally) for name, n in tally[d].items() if n]
    if rows:
        connection.execute(COUNT, rows)


def _reject(connection: Connection, items: Sequence[Rejection], tally: Tallies, now_ns: int) -> None:
    newest = 0
    if items:
        one_by_one(connection, REJECTIONS)  # so that ids are committed in their order, and a page misses none
    for item in items:
        added = insert(t.rejection).values(wall_ns=now_ns, **vars(item)).returning(t.rejection.c.id)
        newest = int(connection.execute(added).scalar_one())
    if items:
        tally[""]["rejections"] += len(items)
        connection.execute(delete(t.rejection).where(t.rejection.c.id <= newest - REJECTIONS_KEPT))
