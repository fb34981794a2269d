"""The write side: everything that waits is committed in one transaction.

- An Event is stored once: a (device, chain, stream, seq) that was delivered before, which `span` tells, is dropped, whatever
  it holds.
- Several workers may commit at once; the transactions of one device follow one another (`database.lock`).
- The projection, the counters and the heads change in the same transaction as the Events that they come from.
- `head` is the highest seq below which nothing is missing: delivered, given up as the device has stated, or below the
  lowest that it still holds. It is the only number that may be acknowledged.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeVar

from sqlalchemy import Connection, Engine, delete, func, insert, or_, select, tuple_, update

from cloud.messages import Batch, Connected, Item, Rejection, Status, json_text, plain_text
from cloud.store import chains, times
from cloud.store import tables as t
from cloud.store.database import Added, EventRow, here, lock, upsert
from cloud.store.intervals import Given, Span, merged, reach, runs
from cloud.store.projection import LATEST, STREAM, decision_row, part_key, tallies
from edge_runtime.wire.batch import ISLANDS_LIMIT, Ack, Shed
from edge_runtime.wire.envelope import Event
from edge_runtime.wire.topics import Place

T = TypeVar("T")
CHUNK = 500
DECISION_COLUMNS = tuple(column.name for column in t.decision.columns)
REJECTIONS_KEPT = 1000

#: the answer to each chain that sent something, and where it belongs
Acks = list[tuple[Place, Ack]]


def commit(engine: Engine, items: Sequence[Item], now_ns: int) -> Acks:
    """Store all items in one transaction; what may be acknowledged once it has returned."""
    with engine.begin() as connection:
        return store(connection, items, now_ns)


def store(connection: Connection, items: Sequence[Item], now_ns: int) -> Acks:
    """The same within a transaction: what it returns is true once that is committed."""
    devices = {item.place.device for item in items if isinstance(item, Batch | Status)}
    lock(connection, devices, alone=any(isinstance(item, Connected) for item in items))
    batches: dict[tuple[str, str], list[Batch]] = defaultdict(list)
    for item in items:
        if isinstance(item, Batch):
            batches[item.place.device, item.checkpoint.chain].append(item)
        elif isinstance(item, Status):
            _see(connection, item.place, now_ns, item)
        elif isinstance(item, Rejection):
            _reject(connection, item, now_ns)
        elif isinstance(item, Connected):
            connection.execute(update(t.device).values(online=False))
    added = Added(connection)
    acks = [_store(connection, chain, found, added, now_ns) for (_, chain), found in batches.items()]
    added.flush()
    return [ack for ack in acks if ack is not None]


def _store(
    connection: Connection, chain: str, batches: Sequence[Batch], added: Added, now_ns: int
) -> tuple[Place, Ack] | None:
    """Add what is new of one chain; the answer to it, or None where the chain belongs to another key."""
    place = batches[-1].place
    if not _pin(connection, place, chain, batches, now_ns):
        return None
    _see(connection, place, now_ns)
    clocks = times.learn(connection, place.device, batches, now_ns)
    newest = max((b.checkpoint for b in batches), key=lambda c: c.counter)
    shed = {s.id: s for b in batches for s in b.checkpoint.shed}
    _keep_shed(connection, place.device, chain, [shed[i] for i in sorted(shed)])
    streams: dict[str, dict[int, tuple[Event, bytes]]] = defaultdict(dict)
    came: Counter[str] = Counter()
    for batch in batches:
        for e, line in zip(batch.events, batch.lines, strict=True):
            came[e.stream] += 1
            streams[e.stream].setdefault(e.seq, (e, line))
    committed: dict[str, int] = {}
    islands: dict[str, list[Span]] = {}
    for stream in dict.fromkeys([*streams, *(s.stream for s in shed.values())]):
        where = (place.device, chain, stream)
        fresh = _insert(connection, where, streams[stream], added, clocks, now_ns)
        settled = newest.floor.get(stream, 1) - 1
        committed[stream], islands[stream] = _advance(connection, where, fresh, came[stream] - len(fresh), settled)
    top = max(shed, default=0)
    return place, Ack(chain, committed, islands, top, newest.counter, newest.mono_ns, received_ns=now_ns, now_ns=now_ns)


def _pin(connection: Connection, place: Place, chain: str, batches: Sequence[Batch], now_ns: int) -> bool:
    """The key of a chain is the one that it came with first; batches under another are turned away."""
    c = t.chain.c
    known = {row.chain: row for row in connection.execute(select(t.chain).where(c.device == place.device))}
    key = known[chain].key if chain in known else batches[0].checkpoint.key
    for batch in batches:
        if batch.checkpoint.key != key:
            _find(connection, place.device, chain, "foreign_key", f"batch signed by {batch.checkpoint.key}", now_ns)
            reason = f"chain {chain} of device {place.device} belongs to another key"
            _reject(connection, Rejection(place.topic("events"), reason, len(batch.header)), now_ns)
            return False
    if known and chain not in known and all(row.key != key for row in known.values()):
        _find(connection, place.device, chain, "key_changed", f"new chain with the new key {key}", now_ns)
    newest = max(batches, key=lambda b: b.checkpoint.counter)
    values = {
        "counter": newest.checkpoint.counter,
        "checkpoint": newest.header,
        "signature": newest.signature,
    }
    if chain not in known:
        row = values | {"device": place.device, "chain": chain, "key": key, "first_seen_ns": now_ns}
        connection.execute(insert(t.chain).values(**row))
    elif newest.checkpoint.counter > known[chain].counter:
        connection.execute(update(t.chain).values(**values).where(c.device == place.device, c.chain == chain))
    return True


def _find(connection: Connection, device: str, chain: str, kind: str, detail: str, now_ns: int) -> None:
    row = {"device": device, "chain": chain, "stream": "", "seq": 0, "kind": kind, "detail": detail, "at_ns": now_ns}
    connection.execute(insert(t.finding).values(**row))


def _keep_shed(connection: Connection, device: str, chain: str, shed: Sequence[Shed]) -> None:
    keys = ["device", "chain", "stream", "policy", "first"]
    for s in shed:
        row = vars(s) | {"device": device, "chain": chain}
        changed = {name: value for name, value in row.items() if name not in keys}
        statement = upsert(connection, t.shed).values(**row)
        newer = t.shed.c.id < s.id
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed, where=newer))


def _insert(
    connection: Connection,
    where: tuple[str, str, str],
    by_seq: dict[int, tuple[Event, bytes]],
    added: Added,
    clocks: times.Clocks,
    now_ns: int,
) -> list[int]:
    """Store what is not there yet of one stream; its numbers in order."""
    delivered = _delivered(connection, where, by_seq)
    fresh = [by_seq[seq] for seq in sorted(by_seq) if not any(s.first <= seq <= s.last for s in delivered)]
    if not fresh:
        return []
    ids = added.ids(len(fresh))
    added.events += [_event_row(i, e, line, clocks.time(e), now_ns) for i, (e, line) in zip(ids, fresh, strict=True)]
    events = [e for e, _ in fresh]
    _keep_latest(connection, events)
    if where[2] == STREAM:
        _project(connection, events, ids, added, now_ns)
    chains.verify(connection, where, {e.seq: chains.Stored(line, e.prev) for e, line in fresh}, now_ns)
    return [e.seq for e in events]


def _delivered(connection: Connection, where: tuple[str, str, str], seqs: Iterable[int]) -> list[Span]:
    """What came before, of the range of `seqs`."""
    first, last = min(seqs, default=0), max(seqs, default=-1)
    s = t.span.c
    query = select(s.first, s.last).where(*here(t.span, where), s.last >= first, s.first <= last)
    return [Span(*row) for row in connection.execute(query)] if first <= last else []


def _event_row(number: int, e: Event, line: bytes, time: times.Time, now_ns: int) -> EventRow:
    boot_id, kind = plain_text(e.boot_id), plain_text(e.kind)
    wall = (e.mono_ns, e.wall_ns, e.wall_uncertainty_ns)
    return (number, e.device, e.chain, e.stream, e.seq, boot_id, kind, *wall, now_ns, line.decode(), *time)


def _project(connection: Connection, events: Sequence[Event], ids: Sequence[int], added: Added, now_ns: int) -> None:
    device, chain = events[0].device, events[0].chain
    rows = [{"id": i, **decision_row(e, now_ns)} for i, e in zip(ids, events, strict=True)]
    keys = [key for row in rows if (key := part_key(row)) is not None]
    seen = Counter(_seen(connection, device, chain, list(dict.fromkeys(keys))))
    found: Counter[str] = Counter()
    for row in rows:
        found += tallies(row)
        key = part_key(row)
        if key is not None:
            seen[key] += 1
            found["parts"] += seen[key] == 1
            found["duplicates"] += seen[key] == 2
    added.decisions += [tuple(row[name] for name in DECISION_COLUMNS) for row in rows]
    _count(connection, device, found)


def _seen(
    connection: Connection, device: str, chain: str, keys: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], int]:
    """How many Events each part already has."""
    part = (t.decision.c.part_epoch, t.decision.c.part_seq)
    counts: dict[tuple[int, int], int] = {}
    for chunk in _chunks(keys):
        near = (t.decision.c.device == device, t.decision.c.chain == chain, tuple_(*part).in_(chunk))
        query = select(*part, func.count()).where(*near)
        counts |= {(epoch, seq): n for epoch, seq, n in connection.execute(query.group_by(*part))}
    return counts


def _count(connection: Connection, device: str, found: Counter[str]) -> None:
    rows = [{"device": device, "name": name, "value": n} for name, n in found.items() if n]
    statement = upsert(connection, t.tally)
    added = statement.on_conflict_do_update(
        index_elements=["device", "name"], set_={"value": t.tally.c.value + statement.excluded.value}
    )
    connection.execute(added, rows)


def _keep_latest(connection: Connection, events: Sequence[Event]) -> None:
    newest = {(e.stream, e.kind): e for e in events if (e.stream, e.kind) in LATEST}
    for e in newest.values():
        values = {"seq": e.seq, "wall_ns": e.wall_ns, "body": json_text(dict(e.body)), "chain": e.chain}
        statement = upsert(connection, t.latest).values(device=e.device, stream=e.stream, kind=e.kind, **values)
        newer = or_(t.latest.c.chain != e.chain, t.latest.c.seq < e.seq)  # a new chain begins at 1 again
        keys = ["device", "stream", "kind"]
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=values, where=newer))


def _advance(
    connection: Connection, where: tuple[str, str, str], fresh: Sequence[int], repeats: int, settled: int
) -> tuple[int, list[Span]]:
    """Move the head over everything that is delivered, given up, or up to `settled` will never come; the head, and the
    first intervals delivered beyond it."""
    h = t.stream_head
    row = connection.execute(select(h.c.head, h.c.top, h.c.duplicates).where(*here(h, where))).one_or_none()
    head, top, duplicates = row or (0, 0, 0)
    if fresh:
        _keep_spans(connection, where, runs(fresh))
    head, top = max(head, settled), max(top, settled, *fresh[-1:])
    while True:
        spans = _spans(connection, where, head)
        shed = connection.execute(
            select(t.shed.c.first, t.shed.c.last, t.shed.c.every).where(*here(t.shed, where), t.shed.c.last > head)
        )
        moved = reach(head, spans, [Given(*r) for r in shed])
        if moved == head or len(spans) < CHUNK:
            break
        head = moved
    head, top = moved, max(top, moved)
    key = dict(zip(("device", "chain", "stream"), where, strict=True))
    values = {"head": head, "top": top, "duplicates": duplicates + repeats}
    statement = upsert(connection, h).values(**key, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values))
    return head, [s for s in spans if s.first > head][:ISLANDS_LIMIT]


def _spans(connection: Connection, where: tuple[str, str, str], head: int) -> list[Span]:
    s = t.span.c
    query = select(s.first, s.last).where(*here(t.span, where), s.last > head).order_by(s.first).limit(CHUNK)
    return [Span(*row) for row in connection.execute(query)]


def _keep_spans(connection: Connection, where: tuple[str, str, str], added: Sequence[Span]) -> None:
    """Join what was added with the intervals that it touches."""
    s = t.span.c
    near = (*here(t.span, where), s.last >= added[0].first - 1, s.first <= added[-1].last + 1)
    touched = [Span(*row) for row in connection.execute(select(s.first, s.last).where(*near))]
    connection.execute(delete(t.span).where(*near))
    key = dict(zip(("device", "chain", "stream"), where, strict=True))
    rows = [key | span._asdict() for span in merged([*touched, *added])]
    connection.execute(insert(t.span), rows)


def _see(connection: Connection, place: Place, now_ns: int, status: Status | None = None) -> None:
    """A device that sends Events is online; one that sends a status is what the status says."""
    where = "/".join(list(vars(place).values())[:-1])
    known = {"online": status.online if status else True, "last_seen_ns": now_ns, "place": where}
    if status:
        known["boot_id"] = status.boot_id
    first = {"boot_id": "", "first_seen_ns": now_ns, "device": place.device} | known
    statement = upsert(connection, t.device).values(**first)
    connection.execute(statement.on_conflict_do_update(index_elements=["device"], set_=known))


def _reject(connection: Connection, item: Rejection, now_ns: int) -> None:
    added = insert(t.rejection).values(wall_ns=now_ns, **vars(item)).returning(t.rejection.c.id)
    newest = connection.execute(added).scalar_one()
    _count(connection, "", Counter({"rejections": 1}))
    connection.execute(delete(t.rejection).where(t.rejection.c.id <= newest - REJECTIONS_KEPT))


def _chunks(values: Sequence[T]) -> Iterable[Sequence[T]]:
    return (values[i : i + CHUNK] for i in range(0, len(values), CHUNK))
