"""Outbox: the durable, ordered, bounded queue between what the device did and what the cloud has confirmed.

One SQLite file, shared by `control` (appends) and `link` (reads, acknowledges). Rules:

- The sequence of a stream is given out inside the transaction that stores the record: no gap, no repeat, across
  crashes. Each record names the hash of the one before it.
- A durable append returns after the commit is on the disk. Appends that arrive while one commit is under way share the
  next one.
- Only an acknowledgement from the cloud deletes, or the disk budget, which tells what it took (`shedding`). The last
  event of each stream is kept apart and survives its acknowledgement.
- An alarm finds room as long as there is any in the budget: a reserve is kept for it.

The rooms: `group` (who commits), `encoding` and `appending` (rows), `heads` (where a stream goes on), `bounds` (the
budget), `pages` (the file's size), `reading`, `acknowledging`, `database` (the file).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from edge_runtime.clock import Clock, SystemClock
from edge_runtime.errors import ResourceError
from edge_runtime.outbox import acknowledging, reading
from edge_runtime.outbox.appending import Append, Rows
from edge_runtime.outbox.bounds import GROUP_LIMIT_BYTES, Bounds
from edge_runtime.outbox.database import Database
from edge_runtime.outbox.encoding import encode
from edge_runtime.outbox.group import GroupCommit
from edge_runtime.outbox.heads import Heads
from edge_runtime.outbox.pages import Pages
from edge_runtime.outbox.policy import Storage
from edge_runtime.outbox.reading import Backlog
from edge_runtime.outbox.shedding import Shedding
from edge_runtime.outbox.trouble import DamagedError
from edge_runtime.wire.batch import Checkpoint
from edge_runtime.wire.envelope import BATCH_LIMIT_BYTES, STREAMS, Event, Record

T = TypeVar("T")
FLUSHED = frozenset(stream for stream, (_, flushed) in STREAMS.items() if flushed)
PART_BYTES = 45 * 1024  # of a blob, in each record; base64 makes a third more of it
CALL_LIMIT_BYTES = 1536 * 1024


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
        self._device, self._boot_id = device, boot_id
        self._clock = clock or SystemClock()
        storage = storage or Storage(budget_bytes=0)
        self._db = Database(path, boot_id, self._clock)
        self._pages = Pages(self._db)
        self._shedding = Shedding(self._db, self._pages, storage)
        self._bounds = Bounds(self._db, self._pages, self._shedding, storage, frames_bytes, self._tick_s())
        self._heads = Heads(self._db, device)
        self._rows = Rows(self._db, self._heads, device, boot_id)
        self._checkpoints = acknowledging.Checkpoints(self._db, self._heads, self._shedding, self._clock)
        self._group = GroupCommit(self._commit, GROUP_LIMIT_BYTES)
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
        append = self._request(items, durable)
        if append.size_bytes > CALL_LIMIT_BYTES:
            raise ValueError(
                f"{len(items)} events of {append.size_bytes} bytes are over the limit of {CALL_LIMIT_BYTES} for one commit"
            )
        self._group.submit(append)
        if append.error is not None:
            raise ResourceError(str(append.error)) from append.error
        events, append.events = append.events, ()  # no cycle: `control` collects no garbage
        return events

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

    def _request(self, items: Sequence[tuple[str, str, Mapping[str, Any]]], durable: bool | None) -> Append:
        texts = [encode(stream, body) for stream, _, body in items]
        if durable is None:
            durable = not FLUSHED.isdisjoint(map(itemgetter(0), items))
        clock = self._clock
        return Append(items, texts, durable, clock.monotonic_ns(), clock.wall_ns(), clock.wall_uncertainty_ns())

    def _commit(self, group: Sequence[Append]) -> None:
        """One transaction for all of the group that finds room; the others get their error."""
        with self._db.lock:
            self._healed(lambda: self._commit_within_bounds(group))

    def _commit_within_bounds(self, appends: Sequence[Append]) -> None:
        self._bounds.keep(self._tick_s())
        if not self._store(appends):
            admitted = self._bounds.make_room(appends)
            if admitted:
                self._store(admitted, room_made=True)

    def _store(self, appends: Sequence[Append], room_made: bool = False) -> bool:
        """False where there is no room for them."""
        durable = (len(appends) == 1 and appends[0].durable) or any(a.durable for a in appends)
        try:
            with self._db.transaction(durable):
                changed = self._heads.changed()
                if not room_made and not self._bounds.fits(appends, changed):
                    return False
                self._rows.store(appends, self._tick_s())
        except BaseException:
            self._heads.forget()
            raise
        return True

    def _store_once(self, append: Append, name: str) -> None:
        """The records that a row of `meta` asks for; it goes in the same transaction. Of several processes one does it."""
        try:
            with self._db.transaction(durable=True):
                if self._db.get(name) is None:
                    return
                self._heads.changed()
                self._rows.store([append], self._tick_s())
                self._db.put(name, None)
        except BaseException:
            self._heads.forget()
            raise

    # ── the file ────────────────────────────────────────────────────────────────────────────────────────────────────

    def measure(self) -> None:
        """Look how much of the budget the rest of the folder takes, for all processes that share this outbox."""
        self._bounds.measure()

    def maintain(self) -> None:
        """What is best done by `link`, once a second or so, and not while a part waits: measure, expire, make room ahead."""
        with self._db.lock:
            self._healed(lambda: self._bounds.maintain(self._tick_s()))

    def close(self) -> None:
        self._db.close()

    def _tick_s(self) -> int:
        return self._db.tick_s(self._clock.monotonic_ns())

    def _healed(self, work: Callable[[], T]) -> T:
        """Where the file turns out to be damaged, a new one takes its place, tells it, and the work is done there."""
        try:
            return work()
        except DamagedError:
            self._tell_damage()
            return work()

    def _tell_damage(self) -> None:
        kept_as, self._db.kept_as = self._db.kept_as, ""
        if kept_as:
            self.measure()
            body = {"kept_as": kept_as, "chain": self.chain}
            self._store_once(self._request([("fault", "outbox_damaged", body)], durable=True), "damage")

    def _adopt_version_1(self) -> None:
        """Records of the old format get a place in the new chain; those under way at the update may come twice."""
        with self._db.reading():
            text = self._db.get("version_1")
        if text:
            self._store_once(self._request(json.loads(text), durable=True), "version_1")

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
        chosen = reading.URGENT_FIRST if streams is None else streams
        return self._healed(
            lambda: reading.pending(self._db, limit_events, limit_bytes, after or {}, chosen, upto or {})
        )

    def ack(self, committed: Mapping[str, int]) -> int:
        """The cloud has everything of each stream up to this sequence number: delete it. Returns how many were deleted.

        A number above the stream's head is cut to the head, so that a confused cloud cannot make the future vanish. It is
        for the chain that this outbox had when it was called: what took the place of a damaged file is not touched."""
        chain = self.chain
        return self._healed(lambda: acknowledging.ack(self._db, self._heads, self._clock, chain, committed))

    def checkpoint(self) -> Checkpoint:
        """What this outbox says of itself now, to be signed and sent; its counter was given to no other."""
        return self._healed(lambda: self._checkpoints.make(self._device, self._boot_id))

    def confirm_shed(self, shed_id: int) -> None:
        """The cloud has stored every statement of what was given up, up to this id; of this chain, as above."""
        chain = self.chain
        self._healed(lambda: self._shedding.confirm(shed_id, chain))

    def floor(self) -> dict[str, int]:
        """The lowest sequence number of each stream that this outbox still holds or will give out."""
        return self._healed(lambda: reading.floor(self._db, self._heads))

    def head(self, stream: str) -> int:
        """The last sequence number given out in `stream`, 0 before the first."""
        return self._healed(lambda: reading.head(self._db, self._heads, stream))

    def last(self, stream: str) -> Event | None:
        """The newest event of `stream`, also after it was acknowledged."""
        return self._healed(lambda: reading.last(self._db, stream))

    def depth(self) -> int:
        """How many records wait for the cloud."""
        return sum(b.records for b in self.backlog().values())

    def backlog(self) -> dict[str, Backlog]:
        """What waits, stream by stream; streams in which nothing waits are left out."""
        return self._healed(lambda: reading.backlog(self._db, self._heads, self._tick_s()))

    def shed_totals(self) -> dict[tuple[str, str], int]:
        """(stream, policy) → how many records were given up in the life of this chain."""
        return self._healed(self._shedding.totals)
