"""The outbox's file: SQLite in WAL mode, opened, checked, and set aside where it is damaged.

- One table for each stream, its rows numbered by the sequence: appends fill pages to the brim, and what is given up or
  acknowledged from the front frees whole pages.
- A damaged file is set aside, never deleted; a new one with a new chain takes its place. Whoever still has the old one
  open finds out by the file's inode before the next transaction.
- A file of up to `CHECK_LIMIT_BYTES` is checked whole at every opening; a larger one only when a page of it was found
  damaged, because the check reads everything.
- The schema only ever grows, so that an older runtime still reads the queue after a rollback.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_runtime.clock import Clock
from edge_runtime.errors import ResourceError
from edge_runtime.wire.envelope import STREAMS

SCHEMA_VERSION = 2
BUSY_TIMEOUT_MS = 2000
CACHE_KIB = 512
WAL_PAGES = 512
CHECK_LIMIT_BYTES = 16 * 1024 * 1024
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
SECOND_NS = 1_000_000_000

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE stream (
  name TEXT PRIMARY KEY, head INTEGER NOT NULL, hash TEXT NOT NULL, stored INTEGER NOT NULL, acked INTEGER NOT NULL,
  gone INTEGER NOT NULL, gone_bytes INTEGER NOT NULL, thinned INTEGER NOT NULL, last BLOB) WITHOUT ROWID;
CREATE TABLE shed (
  stream TEXT NOT NULL, policy TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, every INTEGER NOT NULL,
  id INTEGER NOT NULL, prev_hash TEXT NOT NULL, first_hash TEXT NOT NULL, last_hash TEXT NOT NULL,
  since_wall_ns INTEGER NOT NULL, until_wall_ns INTEGER NOT NULL, PRIMARY KEY (stream, policy, first)) WITHOUT ROWID;
CREATE TABLE shed_total (
  stream TEXT NOT NULL, policy TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (stream, policy)) WITHOUT ROWID;
"""
#: `cum`: bytes of all records of the stream up to this one, so that a queue's size is a subtraction
_EVENTS = (
    "CREATE TABLE event_{} (seq INTEGER PRIMARY KEY, tick_s INTEGER NOT NULL, cum INTEGER NOT NULL, data BLOB NOT NULL)"
)


class DamagedError(Exception):
    """A page of the file cannot be read; a new file has taken its place."""


class Database:
    """`path` and its connection. `kept_as` is the name under which a damaged file was kept, "" where none was, or
    where it was told (`meta` has it until then)."""

    def __init__(self, path: Path, boot_id: str, clock: Clock) -> None:
        self.path, self._boot_id, self._clock = path, boot_id, clock
        self.lock = threading.RLock()
        self.chain = self.kept_as = ""
        self.generation = 0
        self._suspect = False
        self._durable: bool | None = None
        self._limit_pages = 0
        self._open()

    @contextmanager
    def transaction(self, durable: bool) -> Iterator[sqlite3.Connection]:
        """All or nothing, on the disk when it returns if `durable`. ResourceError where the disk refuses, DamagedError where
        the file had to be replaced."""
        with self.lock, self._explained():
            self._follow_file()
            self._set_durable(durable)
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view."""
        with self.lock, self._explained():
            self._follow_file()
            self.db.execute("BEGIN")
            try:
                yield self.db
            finally:
                if self.db.in_transaction:
                    self.db.execute("COMMIT")

    def version(self) -> tuple[int, int]:
        """Changes when another connection has committed, or the file was replaced."""
        return self.generation, self.db.execute("PRAGMA data_version").fetchone()[0]

    def used_pages(self) -> int:
        one = self.db.execute("PRAGMA page_count").fetchone()[0]
        return int(one - self.db.execute("PRAGMA freelist_count").fetchone()[0])

    def limit_pages(self, pages: int) -> None:
        """The file never grows beyond this many pages (or what it has now)."""
        if pages != self._limit_pages:
            self.db.execute(f"PRAGMA max_page_count = {max(pages, 1)}")
            self._limit_pages = pages

    def wal_bytes(self) -> int:
        try:
            return os.stat(f"{self.path}-wal").st_size
        except FileNotFoundError:
            return 0

    def sync(self) -> None:
        """What was committed without a flush is on the disk, too. (SQLite holds no lock on this file that closing it frees.)"""
        try:
            log = os.open(f"{self.path}-wal", os.O_RDONLY)
            try:
                os.fdatasync(log)
            finally:
                os.close(log)
        except FileNotFoundError:
            return  # nothing was written yet
        except OSError as error:
            raise ResourceError(self.explain(error)) from error

    def tick_s(self, mono_ns: int) -> int:
        """Seconds that this chain's device has run, over all boots; kept in `meta` at the start of each boot."""
        return max(0, self._tick_base_s + mono_ns // SECOND_NS)

    def close(self) -> None:
        with self.lock:
            self.db.close()

    # ── opening ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> None:
        """One process at a time, so that two that meet the same damage do not both set the file aside."""
        with self._alone():
            try:
                self._connect()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise ResourceError(self.explain(error)) from error
                self._set_aside()
                try:
                    self._connect()
                except sqlite3.Error as again:
                    raise ResourceError(self.explain(again)) from again
        self.generation += 1

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            lock = self.path.with_name(f"{self.path.name}.lock").open("w")
        except OSError as error:
            raise ResourceError(self.explain(error)) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _set_aside(self) -> None:
        kept = self.path.with_name(f"{self.path.name}.damaged-{self._clock.wall_ns()}")
        self.path.rename(kept)
        for suffix in ("-wal", "-shm"):
            side = self.path.with_name(self.path.name + suffix)
            if side.exists():
                side.rename(kept.with_name(kept.name + suffix))

    def _newest_aside(self) -> str | None:
        """The name of the file in whose place a new one is made: found, because a crash may lie in between."""
        names = [p.name for p in self.path.parent.glob(f"{self.path.name}.damaged-*")]
        return max((n for n in names if not n.endswith(("-wal", "-shm"))), default=None)

    def _connect(self) -> None:
        self.db = sqlite3.connect(
            self.path,
            timeout=BUSY_TIMEOUT_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            self._prepare()
            self._inode = os.stat(self.path).st_ino
        except BaseException:
            self.db.close()  # now: a connection closed later would remove the -wal of a file opened in between
            raise

    def _prepare(self) -> None:
        self._durable, self._limit_pages = None, 0
        if self.db.execute("PRAGMA page_count").fetchone()[0] == 0:  # on an existing file it would write
            self.db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # the file can shrink when the budget does
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self.db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        version = self.db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise ResourceError(
                f"{self.path}: written by a newer Gudgeon (schema {version}, this one reads {SCHEMA_VERSION}); update"
            )
        self._set_durable(True)
        self.db.execute("BEGIN IMMEDIATE")
        try:
            if version < SCHEMA_VERSION:
                self._make(version)
            self._begin_boot()
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        self._check()

    def _make(self, version: int) -> None:
        old = self._take_version_1() if version == 1 else []
        for statement in _SCHEMA.split(";"):
            self.db.execute(statement)
        for stream in STREAMS:
            self.db.execute(_EVENTS.format(stream))
        self.db.executemany(
            "INSERT INTO stream VALUES (?, 0, '', 0, 0, 0, 0, 0, NULL)", [(stream,) for stream in STREAMS]
        )
        self.put("chain", secrets.token_hex(8))
        self.put("version_1", json.dumps(old) if old else None)
        self.put("damage", self._newest_aside())
        self.db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _take_version_1(self) -> list[Any]:
        """What still waited in a queue of schema 1, which knew no chain: [stream, kind, body] in order."""
        found = self.db.execute("SELECT stream, data FROM event ORDER BY priority, stream, seq").fetchall()
        self.db.execute("DROP TABLE event")
        self.db.execute("DROP TABLE stream")
        events = [(stream, json.loads(data)) for stream, data in found]
        return [[stream, event["kind"], event["body"]] for stream, event in events]

    def _begin_boot(self) -> None:
        """Running time goes on from where the last boot was seen."""
        self.chain, self.kept_as = self.get("chain"), self.get("damage") or ""
        mono_s = self._clock.monotonic_ns() // SECOND_NS
        if self.get("boot_id") != self._boot_id:
            last_s = max([self.get("tick_s") or 0, *(self._newest_tick_s(stream) for stream in STREAMS)])
            self.put("boot_id", self._boot_id)
            self.put("tick_base_s", last_s - mono_s)
        self._tick_base_s = int(self.get("tick_base_s"))

    def _newest_tick_s(self, stream: str) -> int:
        row = self.db.execute(f"SELECT tick_s FROM event_{stream} ORDER BY seq DESC LIMIT 1").fetchone()
        return int(row[0]) if row else 0

    def _check(self) -> None:
        if self._suspect or os.stat(self.path).st_size <= CHECK_LIMIT_BYTES:
            if self.db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("quick_check failed")
            self._suspect = False

    def get(self, name: str) -> Any:
        row = self.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def put(self, name: str, value: Any) -> None:
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    # ── while open ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _follow_file(self) -> None:
        """Another process has set the file aside: go on with the one that took its place."""
        try:
            same = os.stat(self.path).st_ino == self._inode
        except FileNotFoundError:
            same = False
        if not same:
            self.db.close()
            self._open()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in DAMAGED:
                self._suspect = True
                self.db.close()
                self._open()
                raise DamagedError(str(error)) from error
            raise ResourceError(self.explain(error)) from error
        except sqlite3.Error as error:
            raise ResourceError(self.explain(error)) from error

    def _set_durable(self, durable: bool) -> None:
        if durable != self._durable:
            self.db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def explain(self, error: BaseException) -> str:
        text = str(error)
        if "full" in text or "No space left" in text:
            return f"{self.path}: the disk is full; free some space"
        if isinstance(error, OSError) or "readonly" in text or "unable to open" in text:
            return f"{self.path}: cannot be written ({text}); check that the folder exists and its permissions"
        if "disk I/O error" in text:
            return f"{self.path}: cannot be read or written ({text}); the disk may have turned read-only, or be failing"
        if "locked" in text:
            return f"{self.path}: stayed locked for {BUSY_TIMEOUT_MS} ms by another process; stop the other one"
        return f"{self.path}: {text}"
