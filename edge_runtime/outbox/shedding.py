"""Giving up records: to make room within the disk budget, and because of their age. What was given up is told exactly.

- Each step is one small transaction; a crash between two leaves a smaller queue whose ranges are stated.
- Steps go from the oldest held record on, and never touch the newest of a stream.
- A range grows as long as the records given up follow each other and nothing was acknowledged in between.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any, NamedTuple

from edge_runtime.outbox.budget import WAL_LIMIT_BYTES, Cap
from edge_runtime.outbox.database import Database
from edge_runtime.outbox.packing import unpack
from edge_runtime.outbox.pages import Pages
from edge_runtime.outbox.policy import CLASSES, Step, Storage, steps
from edge_runtime.wire.batch import SHED_LIMIT, Shed, shed_count
from edge_runtime.wire.envelope import record_hash

EVICT_ROWS = 256
THIN_ROWS = 1024  # of one step; as many of the newest stay whole
ANY_AGE = 2**62
PAGES_OF_A_STEP = 24  # a step itself may need pages before it frees any


class _Range(NamedTuple):
    """Held records `first` … `last`, of which `removed` with `size_bytes` go."""

    first: int
    last: int
    removed: int
    size_bytes: int


class Shedding:
    def __init__(self, database: Database, pages: Pages, storage: Storage) -> None:
        self._database, self._pages, self._storage = database, pages, storage
        self._steps = list(steps(storage))

    def make_room(self, pages: int, cap: Cap) -> bool:
        """Give up records until `pages` more fit under `cap.soft`; False where nothing is left that may go."""
        while self._pages.used() + pages + PAGES_OF_A_STEP > cap.soft:
            if not any(self._take(step) for step in self._steps):
                return self._pages.used() + pages <= cap.soft
            self.trim_log()
        return True

    def expire(self, tick_s: int) -> int:
        """Give up what is older than its class keeps it; how many records went."""
        gone = 0
        for stream, before_tick_s in self._expired(tick_s):
            while count := self._evict(stream, "retention", before_tick_s):
                gone += count
                self.trim_log()
        return gone

    def _expired(self, tick_s: int) -> list[tuple[str, int]]:
        """Streams whose oldest record is too old, and from when on they are kept: known without taking the write lock."""
        kept = [(stream, self._storage.policy(stream).retention_s) for stream in CLASSES]
        with self._database.reading() as db:
            found = []
            for stream, retention_s in kept:
                oldest = (
                    retention_s and db.execute(f"SELECT tick_s FROM event_{stream} ORDER BY seq LIMIT 1").fetchone()
                )
                if oldest and oldest[0] < tick_s - retention_s:
                    found.append((stream, tick_s - retention_s))
        return found

    def trim_log(self) -> None:
        """Keep the write-ahead log within its share of the budget."""
        if self._pages.log_bytes() > WAL_LIMIT_BYTES // 2:
            self._pages.truncate_log()

    # ── one step ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, step: Step) -> int:
        return self._thin(step.stream, step.every) if step.every else self._evict(step.stream, "evict_oldest", ANY_AGE)

    def _evict(self, stream: str, policy: str, before_tick_s: int) -> int:
        with self._database.transaction(durable=False) as db:
            rows = f"SELECT seq, tick_s, length(data) AS size FROM event_{stream} "
            rows += f"WHERE seq < (SELECT max(seq) FROM event_{stream}) ORDER BY seq LIMIT {EVICT_ROWS}"
            found = db.execute(  # numbers and running time rise together, so these are the first of the rows
                f"SELECT min(seq), max(seq), count(*), sum(size) FROM ({rows}) WHERE tick_s < ?", (before_tick_s,)
            ).fetchone()
            if not found[2]:
                return 0
            taken = _Range(*found)
            self._tell(db, stream, policy, 0, taken)
            db.execute(f"DELETE FROM event_{stream} WHERE seq <= ?", (taken.last,))
        return taken.removed

    def _thin(self, stream: str, every: int) -> int:
        with self._database.transaction(durable=False) as db:
            newest_kept = f"(SELECT max(seq) FROM event_{stream}) - {THIN_ROWS}"
            done = "(SELECT max(thinned, acked) FROM stream WHERE name = ?)"
            rows = f"SELECT seq, length(data) AS size FROM event_{stream} WHERE seq <= {newest_kept} AND seq > {done}"
            rows += f" ORDER BY seq LIMIT {THIN_ROWS}"
            found = db.execute(
                f"SELECT min(seq), max(seq), count(*), sum(seq % {every} != 0), sum(size * (seq % {every} != 0)) FROM ({rows})",
                (stream,),
            ).fetchone()
            if found[2] < THIN_ROWS:
                return 0
            taken = _Range(found[0], found[1], found[3], found[4])
            self._tell(db, stream, "thin", every, taken)
            db.execute(
                f"DELETE FROM event_{stream} WHERE seq BETWEEN ? AND ? AND seq % ? != 0",
                (taken.first, taken.last, every),
            )
            db.execute("UPDATE stream SET thinned = ? WHERE name = ?", (taken.last, stream))
        return taken.removed

    def _tell(self, db: sqlite3.Connection, stream: str, policy: str, every: int, taken: _Range) -> None:
        """Into the statement: a new range, or the last one grown."""
        first, last = self._line(db, stream, taken.first), self._line(db, stream, taken.last)
        new_id = (self._database.get("shed_id") or 0) + 1
        self._database.put("shed_id", new_id)
        grown = self._grows(db, stream, policy, every, taken.first)
        end = (taken.last, new_id, record_hash(last), json.loads(last)["wall_ns"])
        if grown is not None:
            db.execute(
                "UPDATE shed SET last = ?, id = ?, last_hash = ?, until_wall_ns = ? "
                "WHERE stream = ? AND policy = ? AND first = ?",
                (*end, stream, policy, grown),
            )
        else:
            begin: dict[str, Any] = json.loads(first)
            row = (stream, policy, taken.first, taken.last, every, new_id, begin["prev"], record_hash(first), end[2])
            db.execute(
                "INSERT INTO shed (stream, policy, first, last, every, id, prev_hash, first_hash, last_hash, since_wall_ns, "
                "until_wall_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, begin["wall_ns"], end[3]),
            )
        db.execute(
            "INSERT INTO shed_total (stream, policy, count) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET count = count + excluded.count",
            (stream, policy, taken.removed),
        )
        db.execute(
            "UPDATE stream SET gone = gone + ?, gone_bytes = gone_bytes + ? WHERE name = ?",
            (taken.removed, taken.size_bytes, stream),
        )

    def _grows(self, db: sqlite3.Connection, stream: str, policy: str, every: int, first: int) -> int | None:
        """The `first` of the range that the new one continues, or None."""
        row = db.execute(
            "SELECT policy, first, last, every FROM shed WHERE stream = ? AND every = ? ORDER BY last DESC LIMIT 1",
            (stream, every),
        ).fetchone()
        acked = db.execute("SELECT acked FROM stream WHERE name = ?", (stream,)).fetchone()[0]
        if row is None or row[0] != policy or row[2] < acked or row[2] >= first:
            return None
        return int(row[1])

    def _line(self, db: sqlite3.Connection, stream: str, seq: int) -> bytes:
        return unpack(db.execute(f"SELECT data FROM event_{stream} WHERE seq = ?", (seq,)).fetchone()[0])

    # ── the statement ───────────────────────────────────────────────────────────────────────────────────────────────

    def unconfirmed(self, db: sqlite3.Connection) -> list[Shed]:
        rows = db.execute(
            "SELECT id, stream, first, last, every, policy, prev_hash, first_hash, last_hash, since_wall_ns, until_wall_ns "
            "FROM shed WHERE id > ? ORDER BY id LIMIT ?",
            (self._database.get("shed_confirmed") or 0, SHED_LIMIT),
        )
        found: list[list[Any]] = [list(row) for row in rows]
        for row in found:
            row.insert(5, shed_count(row[2], row[3], row[4]))
        return [Shed(*row) for row in found]

    def confirm(self, shed_id: int, chain: str) -> None:
        """The cloud has stored every range of `chain` up to this id."""
        with self._database.transaction(durable=False) as db:
            if chain != self._database.chain or shed_id <= (self._database.get("shed_confirmed") or 0):
                return
            self._database.put("shed_confirmed", min(shed_id, self._database.get("shed_id") or 0))
            db.execute(  # all but the newest of each stream and policy, which may still grow
                "DELETE FROM shed WHERE id <= ? AND first < "
                "(SELECT max(s.first) FROM shed s WHERE s.stream = shed.stream AND s.policy = shed.policy)",
                (shed_id,),
            )

    def totals(self) -> dict[tuple[str, str], int]:
        with self._database.reading() as db:
            return {
                (stream, policy): n for stream, policy, n in db.execute("SELECT stream, policy, count FROM shed_total")
            }
