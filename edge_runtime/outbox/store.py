"""Outbox: the durable, ordered queue between what the device did and what the cloud has confirmed.

SQLite in WAL mode, shared by `control` (appends) and `link` (reads, acknowledges). Rules:

- The sequence of a stream is given out inside the transaction that stores the event: no gap, no repeat, across crashes.
- A durable append returns after the commit is on the disk (synchronous FULL). Appends that arrive while one commit is
  under way share the next one (group commit), so that n producers cost one fsync and not n.
- Only an acknowledgement from the cloud deletes; the last event of each stream is kept apart and survives it.
- A damaged file is set aside, never deleted, and the event `outbox_damaged` says so. The sequences then go on far
  above what was ever given out, so that no number comes twice.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_runtime.clock import Clock, SystemClock
from edge_runtime.errors import ResourceError
from edge_runtime.wire.envelope import BATCH_LIMIT_BYTES, STREAMS, Event

SCHEMA_VERSION = 1
BODY_LIMIT_BYTES = 64 * 1024
BUSY_TIMEOUT_MS = 2000
ENVELOPE_BYTES = 256
NEVER_REACHED = 1 << 40
CACHE_KIB = 512

_SCHEMA = """
CREATE TABLE IF NOT EXISTS stream (
  name TEXT PRIMARY KEY, head INTEGER NOT NULL, acked INTEGER NOT NULL, last TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
  priority INTEGER NOT NULL, stream TEXT NOT NULL, seq INTEGER NOT NULL, size INTEGER NOT NULL, data TEXT NOT NULL,
  PRIMARY KEY (priority, stream, seq)) WITHOUT ROWID;
"""


@dataclass
class _Request:
    """One append that waits for its commit."""

    items: Sequence[tuple[str, str, str]]
    mono_ns: int
    wall_ns: int
    durable: bool
    done: threading.Event = field(default_factory=threading.Event)
    events: list[Event] = field(default_factory=list)
    error: BaseException | None = None


class Outbox:
    """Open the queue at `path`, creating it where there is none. Safe for several threads and several processes.

    Raises `errors.ResourceError` where the disk is full, not writable, or stays locked."""

    def __init__(self, path: Path, device: str, boot_id: str, clock: Clock | None = None) -> None:
        self._path, self._device, self._boot_id = path, device, boot_id
        self._clock = clock or SystemClock()
        self._waiting: list[_Request] = []
        self._waiting_lock = threading.Lock()
        self._db_lock = threading.Lock()
        damaged = self._open()
        if damaged:
            self.append("fault", "outbox_damaged", {"kept_as": damaged, "sequences_from": self.floor()["decision"]})

    def append(self, stream: str, kind: str, body: Mapping[str, Any], durable: bool | None = None) -> Event:
        """Store one event; returns it with its sequence number. `durable` None: as the stream's row in STREAMS says."""
        return self.append_many([(stream, kind, body)], durable)[0]

    def append_many(
        self, items: Sequence[tuple[str, str, Mapping[str, Any]]], durable: bool | None = None
    ) -> list[Event]:
        """Store several events of any streams in one commit, all or none."""
        encoded = [(stream, kind, _encode(stream, body)) for stream, kind, body in items]
        if durable is None:
            durable = any(STREAMS[stream][1] for stream, _, _ in encoded)
        request = _Request(encoded, self._clock.monotonic_ns(), self._clock.wall_ns(), durable)
        with self._waiting_lock:
            self._waiting.append(request)
        with self._db_lock:
            if not request.done.is_set():
                self._commit_waiting()
        if request.error is not None:
            raise ResourceError(self._explain(request.error)) from request.error
        return request.events

    def _commit_waiting(self) -> None:
        """Commit everything that waits, as one transaction; the caller holds the database lock."""
        with self._waiting_lock:
            group, self._waiting = self._waiting, []
        try:
            self._set_durable(any(r.durable for r in group))
            self._db.execute("BEGIN IMMEDIATE")
            for request in group:
                request.events = [self._insert(request, *item) for item in request.items]
            self._db.execute("COMMIT")
        except BaseException as error:  # an interrupt too: the others in the group must not take it for success
            for request in group:
                request.error = error
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error):
                raise
        finally:
            for request in group:
                request.done.set()

    def _insert(self, request: _Request, stream: str, kind: str, body: str) -> Event:
        row = self._db.execute("SELECT head FROM stream WHERE name = ?", (stream,)).fetchone()
        seq = (row[0] if row else 0) + 1
        event = Event(
            self._device, stream, seq, self._boot_id, kind, request.mono_ns, request.wall_ns, None, json.loads(body)
        )
        data = json.dumps(event.to_dict(), separators=(",", ":"))
        self._db.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?)", (STREAMS[stream][0], stream, seq, len(data), data))
        self._db.execute(
            "INSERT INTO stream VALUES (?1, ?2, 0, ?3) ON CONFLICT (name) DO UPDATE SET head = ?2, last = ?3",
            (stream, seq, data),
        )
        return event

    def pending(
        self,
        limit_events: int = 500,
        limit_bytes: int = BATCH_LIMIT_BYTES,
        after: Mapping[str, int] | None = None,
    ) -> list[Event]:
        """Unacknowledged events, most urgent stream first, each stream in order; at least one if there is any.

        `after` skips, stream by stream, what has been sent already and only waits for its acknowledgement."""
        out: list[Event] = []
        room = limit_bytes
        with self._reading():
            for stream in sorted(STREAMS, key=lambda s: STREAMS[s][0]):
                rows = self._db.execute(
                    "SELECT size, data FROM event WHERE priority = ? AND stream = ? AND seq > ? ORDER BY seq LIMIT ?",
                    (STREAMS[stream][0], stream, (after or {}).get(stream, 0), limit_events - len(out)),
                )
                for size, data in rows.fetchall():
                    room -= size
                    if out and room < 0:
                        return out
                    out.append(Event(**json.loads(data)))
                if len(out) >= limit_events:
                    break
        return out

    def ack(self, committed: Mapping[str, int]) -> int:
        """The cloud has everything of each stream up to this sequence number: delete it. Returns how many were deleted.

        A number above the stream's head is cut to the head, so that a confused cloud cannot make the future vanish."""
        deleted = 0
        with self._db_lock:
            self._set_durable(False)
            try:
                self._db.execute("BEGIN IMMEDIATE")
                for stream, seq in committed.items():
                    row = self._db.execute("SELECT head, acked FROM stream WHERE name = ?", (stream,)).fetchone()
                    if row is None or seq <= row[1]:
                        continue
                    seq = min(seq, row[0])
                    self._db.execute("UPDATE stream SET acked = ? WHERE name = ?", (seq, stream))
                    deleted += self._db.execute(
                        "DELETE FROM event WHERE priority = ? AND stream = ? AND seq <= ?",
                        (STREAMS[stream][0], stream, seq),
                    ).rowcount
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise ResourceError(self._explain(error)) from error
        return deleted

    def depth(self) -> int:
        """How many events wait for the cloud."""
        with self._reading():
            return int(self._db.execute("SELECT coalesce(sum(head - acked), 0) FROM stream").fetchone()[0])

    def floor(self) -> dict[str, int]:
        """The lowest sequence number of each stream that this outbox still holds or will give out."""
        with self._reading():
            rows = self._db.execute("SELECT name, acked FROM stream").fetchall()
        return {name: acked + 1 for name, acked in rows}

    def head(self, stream: str) -> int:
        """The last sequence number given out in `stream`, 0 before the first."""
        with self._reading():
            row = self._db.execute("SELECT head FROM stream WHERE name = ?", (stream,)).fetchone()
        return int(row[0]) if row else 0

    def last(self, stream: str) -> Event | None:
        """The newest event of `stream`, also after it was acknowledged."""
        with self._reading():
            row = self._db.execute("SELECT last FROM stream WHERE name = ?", (stream,)).fetchone()
        return Event(**json.loads(row[0])) if row and row[0] else None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._db_lock:
            try:
                yield
            except sqlite3.Error as error:
                raise ResourceError(self._explain(error)) from error

    def close(self) -> None:
        with self._db_lock:
            self._db.close()

    def _open(self) -> str | None:
        """Open or create; the name under which a damaged file was kept, or None. One process at a time, so that two that
        meet the same damage do not both set the file aside."""
        with self._alone():
            try:
                self._connect()
                return None
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise ResourceError(self._explain(error)) from error
            kept = self._set_aside()
            try:
                self._connect()
                self._start_anew()
            except sqlite3.Error as error:
                raise ResourceError(self._explain(error)) from error
            return kept

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            lock = self._path.with_name(f"{self._path.name}.lock").open("w")
        except OSError as error:
            raise ResourceError(self._explain(error)) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _set_aside(self) -> str:
        kept = self._path.with_name(f"{self._path.name}.damaged-{self._clock.wall_ns()}")
        self._path.rename(kept)
        for suffix in ("-wal", "-shm"):
            side = self._path.with_name(self._path.name + suffix)
            if side.exists():
                side.rename(kept.with_name(kept.name + suffix))
        return kept.name

    def _start_anew(self) -> None:
        """The sequences go on at the milliseconds of the wall clock, or above 2⁴⁰ where it was never set."""
        wall_ms = self._clock.wall_ns() // 1_000_000
        head = wall_ms if wall_ms >= NEVER_REACHED else NEVER_REACHED + max(wall_ms, 0)
        rows = [(stream, head, head, "") for stream in STREAMS]
        self._db.executemany("INSERT INTO stream VALUES (?, ?, ?, ?)", rows)

    def _connect(self) -> None:
        self._db = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare()
        except BaseException:
            self._db.close()  # now: a connection closed later would remove the -wal of a file opened in between
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._durable: bool | None = None
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise ResourceError(
                f"{self._path}: written by a newer Gudgeon (schema {version}, this one reads {SCHEMA_VERSION}); update"
            )
        if version < SCHEMA_VERSION:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        if self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check failed")

    def _set_durable(self, durable: bool) -> None:
        if durable != self._durable:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def _explain(self, error: BaseException) -> str:
        text = str(error)
        if "full" in text or "No space left" in text:
            return f"{self._path}: the disk is full; free some space"
        if isinstance(error, OSError) or "readonly" in text or "unable to open" in text:
            return f"{self._path}: cannot be written ({text}); check that the folder exists and its permissions"
        if "locked" in text:
            return f"{self._path}: stayed locked for {BUSY_TIMEOUT_MS} ms by another process; stop the other one"
        return f"{self._path}: {text}"


def _encode(stream: str, body: Mapping[str, Any]) -> str:
    if stream not in STREAMS:
        raise ValueError(f"unknown stream {stream!r}, expected one of {', '.join(STREAMS)}")
    text = json.dumps(body, separators=(",", ":"), allow_nan=False)
    if len(text) > BODY_LIMIT_BYTES:
        raise ValueError(f"event body of {len(text)} bytes in stream {stream} is over the limit of {BODY_LIMIT_BYTES}")
    return text
