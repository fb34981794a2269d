"""The outbox's file: SQLite in WAL mode, opened, checked, and set aside where it is damaged.

- One table for each stream, its rows numbered by the sequence: appends fill pages to the brim, and what is given up or
  acknowledged from the front frees whole pages.
- A damaged file is set aside, never deleted; a new one with a new chain takes its place. Whoever still has the old one
  open finds out by the file's inode before the next transaction.
- A file of up to `CHECK_LIMIT_BYTES` is checked whole at every opening; a larger one only when a page of it was found
  damaged, because the check reads everything.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_runtime.clock import Clock
from edge_runtime.errors import ResourceError
from edge_runtime.outbox import schema, trouble
from edge_runtime.outbox.transaction import Transaction, begin_when_free
from edge_runtime.wire.envelope import STREAMS

CACHE_KIB = 512
WAL_PAGES = 512  # after a commit that leaves so many in the log they are copied into the file
CHECK_LIMIT_BYTES = 16 * 1024 * 1024
SECOND_NS = 1_000_000_000


class Database:
    """`path` and its connection. `kept_as` is the name under which a damaged file was kept, "" where none was, or
    where it was told (`meta` has it until then)."""

    def __init__(self, path: Path, boot_id: str, clock: Clock) -> None:
        self.path, self._boot_id, self._clock = path, boot_id, clock
        self._name = str(path)
        self.lock = threading.RLock()
        self.chain = self.kept_as = ""
        self.generation = 0
        self._suspect = False
        self._durable: bool | None = None
        self._patience_ms = 0
        self._open()

    def transaction(self, durable: bool) -> Transaction:
        """All or nothing, on the disk when it returns if `durable`. ResourceError where the disk refuses, DamagedError where
        the file had to be replaced."""
        return Transaction(self, durable)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view."""
        with self.lock:
            try:
                self._follow_file()
                self.be_patient()
                self.db.execute("BEGIN")
                try:
                    yield self.db
                finally:
                    if self.db.in_transaction:
                        self.db.execute("COMMIT")
            except sqlite3.Error as error:
                raise self.told(error) from error

    @contextmanager
    def explained(self) -> Iterator[sqlite3.Connection]:
        """Statements outside a transaction, with the same errors."""
        with self.lock:
            try:
                self.be_patient()
                yield self.db
            except sqlite3.Error as error:
                raise self.told(error) from error

    def version(self) -> tuple[int, int]:
        """Changes when another connection has committed, or the file was replaced."""
        return self.generation, self.db.execute("PRAGMA data_version").fetchone()[0]

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
            raise ResourceError(trouble.explain(self.path, error)) from error

    def tick_s(self, mono_ns: int) -> int:
        """Seconds that this chain's device has run, over all boots; kept in `meta` at the start of each boot."""
        return max(0, self._tick_base_s + mono_ns // SECOND_NS)

    def close(self) -> None:
        with self.lock:
            self.db.close()

    # ── opening ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> None:
        """One process at a time, so that two that meet the same damage do not both set the file aside."""
        with trouble.alone(self.path):
            try:
                self._connect()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise ResourceError(trouble.explain(self.path, error)) from error
                trouble.set_aside(self.path, self._clock.wall_ns())
                try:
                    self._connect()
                except sqlite3.Error as again:
                    raise ResourceError(trouble.explain(self.path, again)) from again
        self.generation += 1

    def _connect(self) -> None:
        self.db = sqlite3.connect(
            self.path,
            timeout=trouble.BUSY_TIMEOUT_MS / 1000,
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
        self._durable, self._patience_ms = None, trouble.BUSY_TIMEOUT_MS
        if self.db.execute("PRAGMA page_count").fetchone()[0] == 0:  # on an existing file it would write
            self.db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # the file can shrink when the budget does
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self.db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        version = self.db.execute("PRAGMA user_version").fetchone()[0]
        if version > schema.VERSION:
            raise ResourceError(
                f"{self.path}: written by a newer Gudgeon (schema {version}, this one reads {schema.VERSION}); update"
            )
        self._set_durable(True)
        self.db.execute("BEGIN IMMEDIATE")
        try:
            if version < schema.VERSION:
                schema.make(self.db, version, trouble.newest_aside(self.path))
            schema.expand(self.db)
            self._begin_boot()
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise
        self._check()

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
        text = "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        self.db.execute(text, (name, value))

    # ── while open ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _follow_file(self) -> None:
        """Another process has set the file aside: go on with the one that took its place."""
        try:
            same = os.stat(self._name).st_ino == self._inode
        except FileNotFoundError:
            same = False
        if not same:
            self.db.close()
            self._open()

    def told(self, error: sqlite3.Error) -> Exception:
        """What to raise for it; where a page cannot be read, a new file has taken the place of this one by then."""
        if trouble.is_damage(error):
            self._suspect = True
            self.db.close()
            self._open()
            return trouble.DamagedError(str(error))
        return ResourceError(trouble.explain(self.path, error))

    def begin(self, durable: bool) -> None:
        """Takes the write lock of the file that is there now."""
        self._follow_file()
        if durable != self._durable:
            self._set_durable(durable)
        if self._patience_ms:
            self._set_patience(0)
        try:
            self.db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            begin_when_free(self.db, error)

    def be_patient(self) -> None:
        """SQLite itself waits where the next statement finds the file locked."""
        self._set_patience(trouble.BUSY_TIMEOUT_MS)

    def _set_patience(self, busy_timeout_ms: int) -> None:
        if busy_timeout_ms != self._patience_ms:
            self.db.execute(f"PRAGMA busy_timeout = {busy_timeout_ms}")
            self._patience_ms = busy_timeout_ms

    def _set_durable(self, durable: bool) -> None:
        self.db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._durable = durable
