"""Outbox: the durable, ordered, bounded queue between what the device did and what the cloud has confirmed.

One SQLite file, shared by `control` (appends) and `link` (reads, acknowledges). Rules:

- The sequence of a stream is given out inside the transaction that stores the record: no gap, no repeat, across
  crashes. Each record names the hash of the one before it.
- A durable append returns after the commit is on the disk. Appends that arrive while one commit is under way share the
  next one.
- Only an acknowledgement from the cloud deletes, or the disk budget, which tells what it took (`shedding`). The last
  event of each stream is kept apart and survives its acknowledgement.
- An alarm finds room as long as there is any in the budget: a reserve is kept for it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

from edge_runtime.clock import Clock, SystemClock
from edge_runtime.errors import ResourceError
from edge_runtime.outbox.budget import UNLIMITED, Cap, cap_pages, du_bytes
from edge_runtime.outbox.database import DamagedError, Database
from edge_runtime.outbox.group import GroupCommit, Request
from edge_runtime.outbox.packing import PACK_FROM_BYTES, pack, unpack
from edge_runtime.outbox.policy import Storage
from edge_runtime.outbox.shedding import Shedding
from edge_runtime.wire.batch import Checkpoint, Head
from edge_runtime.wire.envelope import BATCH_LIMIT_BYTES, STREAMS, Event, Record, genesis, read_record, record_hash

T = TypeVar("T")
BODY_LIMIT_BYTES = 64 * 1024
PART_BYTES = 45 * 1024  # of a blob, in each record; base64 makes a third more of it
GROUP_LIMIT_BYTES = 1024 * 1024
CALL_LIMIT_BYTES = 1536 * 1024
ROW_BYTES = 48  # what a row takes in the file beside its data, generously
COUNTERS = 1000
ACK_ROWS = 5000
EXPIRE_EVERY_S = 60
ALARM = "alarm"
URGENT_FIRST = sorted(STREAMS, key=lambda s: STREAMS[s][0])


class _UsedUpError(Exception):
    """Another process was first."""


class Backlog(NamedTuple):
    """What waits of one stream. `oldest_age_s` is running time of the device."""

    records: int
    size_bytes: int
    oldest_age_s: int


class _Newest(NamedTuple):
    """`cum`: bytes of all records of the stream up to this one."""

    seq: int
    hash: str
    cum: int


@dataclass(eq=False)
class _Append(Request):
    """`items`: stream, kind, body, body as JSON."""

    items: Sequence[tuple[str, str, Mapping[str, Any], str]] = ()
    mono_ns: int = 0
    wall_ns: int = 0
    uncertainty_ns: int | None = None
    durable: bool = True
    events: Sequence[Event] = ()


class _Stored(Sequence[Event]):
    """The events of one append, each made when it is looked at: most callers do not look."""

    def __init__(self, device: str, chain: str, boot_id: str, request: _Append, places: list[tuple[int, str]]) -> None:
        self._names, self._request, self._places = (device, chain, boot_id), request, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Event: ...
    @overload
    def __getitem__(self, at: slice) -> list[Event]: ...
    def __getitem__(self, at: int | slice) -> Event | list[Event]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        (device, chain, boot_id), r = self._names, self._request
        (stream, kind, body, _), (seq, prev) = r.items[at], self._places[at]
        return Event(device, chain, stream, seq, boot_id, kind, r.mono_ns, r.wall_ns, r.uncertainty_ns, prev, body)


class Outbox:
    """Open the queue at `path`, creating it where there is none. Safe for several threads and several processes.

    `storage`: the disk budget and the classes; none: no limit. `frames_bytes`: what the folder's other writers may come
    to hold by themselves. Raises `errors.ResourceError` where the disk is full, not writable, or stays locked."""

    def __init__(
        self,
        path: Path,
        device: str,
        boot_id: str,
        clock: Clock | None = None,
        storage: Storage | None = None,
        frames_bytes: int = 0,
    ) -> None:
        self._path, self._device, self._boot_id = path, device, boot_id
        self._clock = clock or SystemClock()
        self._storage, self._frames_bytes = storage or Storage(budget_bytes=0), frames_bytes
        self._db = Database(path, boot_id, self._clock)
        self._shedding = Shedding(self._db, self._storage)
        self._group = GroupCommit(self._commit, GROUP_LIMIT_BYTES)
        self._newest: dict[str, _Newest] = {}
        self._kinds: dict[str, str] = {}  # as JSON; few
        self._newest_version: tuple[int, int] | None = None
        self._counters: tuple[str, range] = ("", range(0))
        self._synced: tuple[dict[str, Head], int] = ({}, 0)
        self._expired_s = self._db.tick_s(self._clock.monotonic_ns())
        self.measure()
        self._tell_damage()
        self._adopt_version_1()

    @property
    def chain(self) -> str:
        """The life of this outbox: 16 hex digits, made with the file."""
        return self._db.chain

    # ── append ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def append(self, stream: str, kind: str, body: Mapping[str, Any], durable: bool | None = None) -> Event:
        """Store one event; returns it with its sequence number. `durable` None: as the stream's row in STREAMS says."""
        return self.append_many([(stream, kind, body)], durable)[0]

    def append_many(
        self, items: Sequence[tuple[str, str, Mapping[str, Any]]], durable: bool | None = None
    ) -> Sequence[Event]:
        """Store several events of any streams in one commit, all or none; together at most 1.5 MiB."""
        encoded = [(stream, kind, body, _encode(stream, body)) for stream, kind, body in items]
        if durable is None:
            durable = any(STREAMS[stream][1] for stream, _, _ in items)
        size = sum(len(text) for *_, text in encoded)
        if size > CALL_LIMIT_BYTES:
            raise ValueError(
                f"{len(items)} events of {size} bytes are over the limit of {CALL_LIMIT_BYTES} for one commit"
            )
        clock = self._clock
        times = clock.monotonic_ns(), clock.wall_ns(), clock.wall_uncertainty_ns()
        request = _Append(
            size, items=encoded, mono_ns=times[0], wall_ns=times[1], uncertainty_ns=times[2], durable=durable
        )
        self._group.submit(request)
        if request.error is not None:
            raise ResourceError(str(request.error)) from request.error
        return request.events

    def append_blob(self, stream: str, kind: str, meta: Mapping[str, Any], data: bytes) -> list[Event]:
        """Store a large payload as a row of records of kind ``<kind>.part``; the reader joins them by the SHA-256 of the
        whole, under ``blob``."""
        blob = hashlib.sha256(data).hexdigest()
        parts = [data[i : i + PART_BYTES] for i in range(0, len(data), PART_BYTES)] or [b""]
        events = []
        for i, part in enumerate(parts):
            body: dict[str, Any] = {"blob": blob, "part": i, "of": len(parts), "data": base64.b64encode(part).decode()}
            if i == 0:
                body |= {"size_bytes": len(data), "meta": dict(meta)}
            events.append(self.append(stream, f"{kind}.part", body, durable=i == len(parts) - 1 and STREAMS[stream][1]))
        return events

    def _commit(self, group: Sequence[Request]) -> None:
        """One transaction for all of the group that finds room; the others get their error."""
        requests = [r for r in group if isinstance(r, _Append)]
        with self._db.lock:
            self._keep_bounds()
            admitted = [r for r in requests if self._admit(r, requests)]
            if not admitted:
                return
            self._again_if_damaged(lambda: self._store(admitted))
            if self._storage.budget_bytes:
                self._shedding.trim_log()

    def _store(self, requests: Sequence[_Append], with_it: Callable[[], None] | None = None) -> None:
        """One transaction; `with_it` is done in it, too."""
        try:
            with self._db.transaction(any(r.durable for r in requests)) as db:
                version = self._db.version()
                if version != self._newest_version:
                    self._newest.clear()
                    self._newest_version = version
                tick_s = self._db.tick_s(self._clock.monotonic_ns())
                rows: dict[str, list[tuple[int, int, int, bytes]]] = {}
                for request in requests:
                    end = self._line_end(request)
                    places = [
                        self._add(rows, tick_s, end, stream, kind, body) for stream, kind, _, body in request.items
                    ]
                    request.events = _Stored(self._device, self._db.chain, self._boot_id, request, places)
                for stream, found in rows.items():
                    db.executemany(f"INSERT INTO event_{stream} VALUES (?, ?, ?, ?)", found)
                if with_it:
                    with_it()
        except BaseException:
            self._newest_version = None
            raise

    def _store_once(self, requests: Sequence[_Append], name: str) -> None:
        """The records that a row of `meta` asks for; it goes in the same transaction. Of several processes one does it."""

        def use_up() -> None:
            if self._db.get(name) is None:
                raise _UsedUpError
            self._db.put(name, None)

        with suppress(_UsedUpError):
            self._store(requests, use_up)

    def _line_end(self, r: _Append) -> tuple[str, str, str]:
        """What the record lines of one append have in common, in three pieces: before the stream, the sequence number and
        the hash; together the same bytes as `wire.envelope.record_line` makes."""
        uncertainty = "null" if r.uncertainty_ns is None else r.uncertainty_ns
        begin = f'{{"device":{json.dumps(self._device)},"chain":"{self._db.chain}","stream":"'
        boot = f',"boot_id":{json.dumps(self._boot_id)},"kind":'
        return begin, boot, f',"mono_ns":{r.mono_ns},"wall_ns":{r.wall_ns},"wall_uncertainty_ns":{uncertainty},"prev":"'

    def _add(
        self,
        rows: dict[str, list[tuple[int, int, int, bytes]]],
        tick_s: int,
        common: tuple[str, str, str],
        stream: str,
        kind: str,
        body: str,
    ) -> tuple[int, str]:
        """One row of `stream`; its number and the hash of the record before it."""
        newest = self._newest.get(stream) or self._load_newest(stream)
        begin, boot, times = common
        seq = newest.seq + 1
        name = self._kinds.get(kind) or self._kinds.setdefault(kind, json.dumps(kind))
        line = f'{begin}{stream}","seq":{seq}{boot}{name}{times}{newest.hash}","body":{body}}}'.encode()
        data = pack(line) if len(line) >= PACK_FROM_BYTES else line
        cum = newest.cum + len(data)
        self._newest[stream] = _Newest(seq, record_hash(line), cum)
        found = rows.get(stream)
        if found is None:
            found = rows[stream] = []
        found.append((seq, tick_s, cum, data))
        return seq, newest.hash

    def _load_newest(self, stream: str) -> _Newest:
        row = self._db.db.execute(f"SELECT seq, cum, data FROM event_{stream} ORDER BY seq DESC LIMIT 1").fetchone()
        if row:
            return _Newest(row[0], record_hash(unpack(row[2])), row[1])
        head, known, stored = self._db.db.execute(
            "SELECT head, hash, stored FROM stream WHERE name = ?", (stream,)
        ).fetchone()
        return _Newest(head, known or genesis(self._device, self._db.chain, stream), stored)

    # ── the budget ──────────────────────────────────────────────────────────────────────────────────────────────────

    def measure(self) -> None:
        """Look how much of the budget the rest of the folder takes, for all processes that share this outbox."""
        if not self._storage.budget_bytes:
            return
        own = [self._path.with_name(self._path.name + suffix) for suffix in ("", "-wal", "-shm")]
        rest = du_bytes(self._path.parent, own)
        with self._db.transaction(durable=False) as db:
            page_bytes = db.execute("PRAGMA page_size").fetchone()[0]
            frames = max(0, self._frames_bytes - du_bytes(self._path.parent / "review"))
            self._db.put("cap", json.dumps(cap_pages(self._storage, rest, frames, page_bytes)))

    def maintain(self) -> None:
        """What is best done by `link`, once a second or so, and not while a part waits: measure, expire, make room ahead."""
        self.measure()
        with self._db.lock:
            self._shedding.expire(self._db.tick_s(self._clock.monotonic_ns()))
            cap = self._cap()
            if cap.hard < UNLIMITED:
                self._shedding.make_room(GROUP_LIMIT_BYTES // 4096, cap)
                self._shedding.shrink(cap)

    def _cap(self) -> Cap:
        text = self._db.get("cap") if self._storage.budget_bytes else None
        return Cap(*json.loads(text)) if text else Cap(UNLIMITED, UNLIMITED)

    def _keep_bounds(self) -> None:
        tick_s = self._db.tick_s(self._clock.monotonic_ns())
        if tick_s - self._expired_s >= EXPIRE_EVERY_S:
            self._expired_s = tick_s
            self._again_if_damaged(lambda: self._shedding.expire(tick_s))

    def _admit(self, request: _Append, group: Sequence[_Append]) -> bool:
        """Whether there is room in the budget, making some where there is not."""
        if not self._storage.budget_bytes:
            return True
        with self._db.reading():
            cap, page_bytes = self._cap(), 4096
        pages = sum(r.size_bytes + ROW_BYTES + 600 * len(r.items) for r in group) // page_bytes + 8
        if self._again_if_damaged(lambda: self._shedding.make_room(pages, cap)):
            self._db.limit_pages(cap.hard)
            return True
        if all(stream == ALARM for stream, *_ in request.items):
            self._db.limit_pages(cap.hard)
            return self._db.used_pages() + pages <= cap.hard or self._refuse(request, cap)
        return self._refuse(request, cap)

    def _refuse(self, request: _Append, cap: Cap) -> bool:
        request.error = ResourceError(
            f"{self._path}: the disk budget of {self._storage.budget_bytes} bytes is used up and nothing in it may be given "
            f"up; raise storage.budget_bytes, or change storage.classes ({cap.hard} pages are left to the outbox)"
        )
        return False

    def _again_if_damaged(self, work: Callable[[], T]) -> T:
        """Where the file turns out to be damaged, a new one takes its place and the work is done there."""
        try:
            return work()
        except DamagedError:
            self._tell_damage()
            return work()

    def _tell_damage(self) -> None:
        kept_as, self._db.kept_as = self._db.kept_as, ""
        if kept_as:
            self.measure()
            clock = self._clock
            body = {"kept_as": kept_as, "chain": self.chain}
            item = ("fault", "outbox_damaged", body, json.dumps(body))
            append = _Append(0, items=[item], mono_ns=clock.monotonic_ns(), wall_ns=clock.wall_ns())
            self._store_once([append], "damage")

    def _adopt_version_1(self) -> None:
        """Records of the old format get a place in the new chain; those under way at the update may come twice."""
        with self._db.reading():
            text = self._db.get("version_1")
        if text:
            items = [(stream, kind, body, _encode(stream, body)) for stream, kind, body in json.loads(text)]
            clock = self._clock
            append = _Append(0, items=items, mono_ns=clock.monotonic_ns(), wall_ns=clock.wall_ns())
            self._store_once([append], "version_1")

    # ── read, acknowledge ───────────────────────────────────────────────────────────────────────────────────────────

    def pending(
        self,
        limit_events: int = 500,
        limit_bytes: int = BATCH_LIMIT_BYTES,
        after: Mapping[str, int] | None = None,
        streams: Sequence[str] | None = None,
        upto: Mapping[str, int] | None = None,
    ) -> list[Record]:
        """Unacknowledged records, most urgent stream first, each stream in order; at least one if there is any.

        `after` skips, stream by stream, what was sent already; `upto` is the last number wanted. `streams`: only these, in
        this order."""
        out: list[Record] = []
        room = limit_bytes
        with self._db.reading() as db:
            for stream in URGENT_FIRST if streams is None else streams:
                rows = db.execute(
                    f"SELECT seq, data FROM event_{stream} WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
                    ((after or {}).get(stream, 0), (upto or {}).get(stream, 2**62), limit_events - len(out)),
                )
                for seq, data in rows:
                    record = Record(stream, seq, unpack(data))
                    room -= len(record.line)
                    if out and room < 0:
                        return out
                    out.append(record)
                if len(out) >= limit_events:
                    break
        return out

    def ack(self, committed: Mapping[str, int]) -> int:
        """The cloud has everything of each stream up to this sequence number: delete it. Returns how many were deleted.

        A number above the stream's head is cut to the head, so that a confused cloud cannot make the future vanish."""
        return sum(self._ack(stream, seq) for stream, seq in committed.items() if stream in STREAMS)

    def _ack(self, stream: str, seq: int) -> int:
        deleted = 0
        more = True
        while more:
            with self._db.transaction(durable=False) as db:
                acked = db.execute("SELECT acked FROM stream WHERE name = ?", (stream,)).fetchone()[0]
                newest = self._load_newest(stream)
                upto = min(seq, newest.seq, acked + ACK_ROWS)
                if upto <= acked:
                    return deleted
                more = upto < min(seq, newest.seq)
                if upto == newest.seq:
                    self._keep_last(db, stream, newest)
                where = f"FROM event_{stream} WHERE seq <= ?"
                count, size = db.execute(f"SELECT count(*), sum(length(data)) {where}", (upto,)).fetchone()
                db.execute(f"DELETE {where}", (upto,))
                db.execute(
                    "UPDATE stream SET acked = ?, gone = gone + ?, gone_bytes = gone_bytes + ? WHERE name = ?",
                    (upto, count, size or 0, stream),
                )
                deleted += count
        return deleted

    def _keep_last(self, db: sqlite3.Connection, stream: str, newest: _Newest) -> None:
        db.execute(
            "UPDATE stream SET head = ?, hash = ?, stored = ?, "
            f"last = coalesce((SELECT data FROM event_{stream} WHERE seq = ?), last) WHERE name = ?",
            (newest.seq, newest.hash, newest.cum, newest.seq, stream),
        )

    def checkpoint(self) -> Checkpoint:
        """What this outbox says of itself now, to be signed and sent; its counter was given to no other.

        What it names is on the disk by then, the records that nobody asked to be durable and the ranges given up, too: a
        power cut must not take back what the cloud has seen."""
        counter = self._next_counter()
        with self._db.reading() as db:
            newest = {stream: self._load_newest(stream) for stream in STREAMS}
            heads = {s: Head(n.seq, n.hash) for s, n in newest.items() if n.seq}
            floor = {s: self._lowest(stream=s) or newest[s].seq + 1 for s in heads}
            shed = self._shedding.unconfirmed(db)
        told = heads, max((s.id for s in shed), default=0)
        if told != self._synced:
            self._db.sync()
            self._synced = told
        clock = self._clock
        return Checkpoint(
            self._device, self.chain, self._boot_id, counter,
            clock.monotonic_ns(), clock.wall_ns(), clock.wall_uncertainty_ns(), "", floor, heads, shed,
        )  # fmt: skip

    def _next_counter(self) -> int:
        """Taken from the file a thousand at a time; a restart skips the rest, so that none comes twice."""
        chain, left = self._counters
        if chain != self.chain or not left:
            with self._db.transaction(durable=True):
                first = (self._db.get("counter") or 0) + 1
                self._db.put("counter", first + COUNTERS - 1)
                self._db.put("tick_s", self._db.tick_s(self._clock.monotonic_ns()))
            left = range(first, first + COUNTERS)
        self._counters = (self.chain, left[1:])
        return left[0]

    def confirm_shed(self, shed_id: int) -> None:
        """The cloud has stored every statement of what was given up, up to this id."""
        self._shedding.confirm(shed_id)

    def _lowest(self, stream: str) -> int:
        return int(self._db.db.execute(f"SELECT coalesce(min(seq), 0) FROM event_{stream}").fetchone()[0])

    def floor(self) -> dict[str, int]:
        """The lowest sequence number of each stream that this outbox still holds or will give out."""
        with self._db.reading():
            heads = {stream: self._load_newest(stream).seq for stream in STREAMS}
            return {s: self._lowest(s) or head + 1 for s, head in heads.items() if head}

    def head(self, stream: str) -> int:
        """The last sequence number given out in `stream`, 0 before the first."""
        with self._db.reading():
            return self._load_newest(stream).seq

    def last(self, stream: str) -> Event | None:
        """The newest event of `stream`, also after it was acknowledged."""
        with self._db.reading() as db:
            row = db.execute(f"SELECT data FROM event_{stream} ORDER BY seq DESC LIMIT 1").fetchone()
            row = row or db.execute("SELECT last FROM stream WHERE name = ?", (stream,)).fetchone()
        return read_record(unpack(row[0])) if row[0] else None

    def depth(self) -> int:
        """How many records wait for the cloud."""
        return sum(b.records for b in self.backlog().values())

    def backlog(self) -> dict[str, Backlog]:
        """What waits, stream by stream; streams in which nothing waits are left out. No table is scanned."""
        found = {}
        tick_s = self._db.tick_s(self._clock.monotonic_ns())
        with self._db.reading() as db:
            for stream, gone, gone_bytes in db.execute("SELECT name, gone, gone_bytes FROM stream").fetchall():
                oldest = db.execute(f"SELECT tick_s FROM event_{stream} ORDER BY seq LIMIT 1").fetchone()
                if oldest:
                    newest = self._load_newest(stream)
                    waits = Backlog(newest.seq - gone, newest.cum - gone_bytes, max(0, tick_s - oldest[0]))
                    found[stream] = waits
        return found

    def shed_totals(self) -> dict[tuple[str, str], int]:
        """(stream, policy) → how many records were given up in the life of this chain."""
        with self._db.reading() as db:
            return self._shedding.totals(db)

    def close(self) -> None:
        self._db.close()


_to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def _encode(stream: str, body: Mapping[str, Any]) -> str:
    if stream not in STREAMS:
        raise ValueError(f"unknown stream {stream!r}, expected one of {', '.join(STREAMS)}")
    text = _to_json(body)
    if len(text) > BODY_LIMIT_BYTES:
        raise ValueError(f"event body of {len(text)} bytes in stream {stream} is over the limit of {BODY_LIMIT_BYTES}")
    return text
