"""The write side: everything that waits is committed in one transaction.

- An Event is stored once: (device, stream, seq) that is already there is dropped, whatever it holds.
- The projection, the counters and the heads change in the same transaction as the Events that they come from.
- `head` is the highest seq below which nothing is missing. It is the only number that may be acknowledged.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, delete, func, insert, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert as upsert

from cloud.messages import Batch, Connected, Item, Rejection, Status, json_text, plain_text
from cloud.store import tables as t
from cloud.store.projection import LATEST, STREAM, decision_row, part_key, tallies
from edge_runtime.wire.envelope import Event
from edge_runtime.wire.topics import Place

T = TypeVar("T")
CHUNK = 500
REJECTIONS_KEPT = 1000

#: the place of a device and the heads of the streams that its messages touched
Acks = dict[Place, dict[str, int]]


def commit(engine: Engine, items: Sequence[Item], now_ns: int) -> Acks:
    """Store all items in one transaction; what may be acknowledged once it has returned."""
    acks: Acks = {}
    events: dict[Place, list[Event]] = defaultdict(list)
    floors: dict[Place, Counter[str]] = defaultdict(Counter)
    with engine.begin() as connection:
        for item in items:
            if isinstance(item, Batch):
                events[item.place].extend(item.events)
                floors[item.place] |= Counter(item.floor)  # the higher of the two, stream by stream
            elif isinstance(item, Status):
                _see(connection, item.place, now_ns, item)
            elif isinstance(item, Rejection):
                _reject(connection, item, now_ns)
            elif isinstance(item, Connected):
                connection.execute(update(t.device).values(online=False))
        for place, batch in events.items():
            _see(connection, place, now_ns)
            acks[place] = _store(connection, place.device, batch, floors[place], now_ns)
    return acks


def _store(
    connection: Connection, device: str, events: Sequence[Event], floor: Mapping[str, int], now_ns: int
) -> dict[str, int]:
    """Add what is new; the head of each stream."""
    streams: dict[str, dict[int, Event]] = defaultdict(dict)
    for e in events:
        streams[e.stream].setdefault(e.seq, e)
    heads: dict[str, int] = {}
    for stream, by_seq in streams.items():
        for seq in _known(connection, device, stream, list(by_seq)):
            del by_seq[seq]
        fresh = [by_seq[seq] for seq in sorted(by_seq)]
        if fresh:
            connection.execute(insert(t.event), [_event_row(e, now_ns) for e in fresh])
            _keep_latest(connection, fresh)
        if fresh and stream == STREAM:
            _project(connection, device, [decision_row(e, now_ns) for e in fresh])
        heads[stream] = _advance(connection, device, stream, fresh[-1].seq if fresh else 0, floor.get(stream, 1) - 1)
    return heads


def _known(connection: Connection, device: str, stream: str, seqs: Sequence[int]) -> Iterator[int]:
    for chunk in _chunks(seqs):
        where = (t.event.c.device == device, t.event.c.stream == stream, t.event.c.seq.in_(chunk))
        yield from connection.execute(select(t.event.c.seq).where(*where)).scalars()


def _event_row(e: Event, now_ns: int) -> dict[str, Any]:
    row = vars(e) | {"boot_id": plain_text(e.boot_id), "kind": plain_text(e.kind), "body": json_text(dict(e.body))}
    return row | {"received_ns": now_ns}


def _project(connection: Connection, device: str, rows: Sequence[dict[str, Any]]) -> None:
    keys = [key for row in rows if (key := part_key(row)) is not None]
    seen = Counter(_seen(connection, device, list(dict.fromkeys(keys))))
    found: Counter[str] = Counter()
    for row in rows:
        found += tallies(row)
        key = part_key(row)
        if key is not None:
            seen[key] += 1
            found["parts"] += seen[key] == 1
            found["duplicates"] += seen[key] == 2
    connection.execute(insert(t.decision), rows)
    _count(connection, device, found)


def _seen(connection: Connection, device: str, keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """How many Events each part already has."""
    part = (t.decision.c.part_epoch, t.decision.c.part_seq)
    counts: dict[tuple[int, int], int] = {}
    for chunk in _chunks(keys):
        query = select(*part, func.count()).where(t.decision.c.device == device, tuple_(*part).in_(chunk))
        counts |= {(epoch, seq): n for epoch, seq, n in connection.execute(query.group_by(*part))}
    return counts


def _count(connection: Connection, device: str, found: Counter[str]) -> None:
    rows = [{"device": device, "name": name, "value": n} for name, n in found.items() if n]
    statement = upsert(t.tally)
    added = statement.on_conflict_do_update(
        index_elements=["device", "name"], set_={"value": t.tally.c.value + statement.excluded.value}
    )
    connection.execute(added, rows)


def _keep_latest(connection: Connection, events: Sequence[Event]) -> None:
    newest = {(e.stream, e.kind): e for e in events if (e.stream, e.kind) in LATEST}
    for e in newest.values():
        values = {"seq": e.seq, "wall_ns": e.wall_ns, "body": json_text(dict(e.body))}
        statement = upsert(t.latest).values(device=e.device, stream=e.stream, kind=e.kind, **values)
        newer = t.latest.c.seq < e.seq
        keys = ["device", "stream", "kind"]
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=values, where=newer))


def _advance(connection: Connection, device: str, stream: str, added_top: int, settled: int) -> int:
    """Move the head over everything that is stored without a gap; `settled`: what lies up to here is stored or will never
    come."""
    here = (t.stream_head.c.device == device, t.stream_head.c.stream == stream)
    row = connection.execute(select(t.stream_head.c.head, t.stream_head.c.top).where(*here)).one_or_none()
    head, top = (row.head, max(row.top, added_top)) if row else (0, added_top)
    head, top = max(head, settled), max(top, settled)
    if row and (head, top) == (row.head, row.top) and top == head:
        return int(head)
    after = (t.event.c.device == device, t.event.c.stream == stream, t.event.c.seq > head)
    with connection.execute(select(t.event.c.seq).where(*after).order_by(t.event.c.seq)) as found:
        for seq in found.scalars():
            if seq != head + 1:
                break
            head = seq
    values = {"head": head, "top": top}
    statement = upsert(t.stream_head).values(device=device, stream=stream, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["device", "stream"], set_=values))
    return int(head)


def _see(connection: Connection, place: Place, now_ns: int, status: Status | None = None) -> None:
    """A device that sends Events is online; one that sends a status is what the status says."""
    where = "/".join(list(vars(place).values())[:-1])
    known = {"online": status.online if status else True, "last_seen_ns": now_ns, "place": where}
    if status:
        known["boot_id"] = status.boot_id
    first = {"boot_id": "", "first_seen_ns": now_ns, "device": place.device} | known
    statement = upsert(t.device).values(**first)
    connection.execute(statement.on_conflict_do_update(index_elements=["device"], set_=known))


def _reject(connection: Connection, item: Rejection, now_ns: int) -> None:
    added = insert(t.rejection).values(wall_ns=now_ns, **vars(item)).returning(t.rejection.c.id)
    newest = connection.execute(added).scalar_one()
    _count(connection, "", Counter({"rejections": 1}))
    connection.execute(delete(t.rejection).where(t.rejection.c.id <= newest - REJECTIONS_KEPT))


def _chunks(values: Sequence[T]) -> Iterable[Sequence[T]]:
    return (values[i : i + CHUNK] for i in range(0, len(values), CHUNK))
