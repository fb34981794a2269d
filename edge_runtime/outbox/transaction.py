"""One transaction of the outbox's file, from the write lock to the flush."""

from __future__ import annotations

import sqlite3
from time import monotonic, sleep
from typing import TYPE_CHECKING

from edge_runtime.outbox import trouble

if TYPE_CHECKING:
    from edge_runtime.outbox.database import Database

LOOK_EVERY_S = 0.0001


class Transaction:
    """Entered at every durable append, hence no generator."""

    __slots__ = ("_database", "_durable")

    def __init__(self, database: Database, durable: bool) -> None:
        self._database, self._durable = database, durable

    def __enter__(self) -> sqlite3.Connection:
        database = self._database
        database.lock.acquire()
        try:
            database.begin(self._durable)
        except BaseException as error:
            try:
                if isinstance(error, sqlite3.Error):
                    raise database.told(error) from error
                raise
            finally:
                database.lock.release()
        return database.db

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        database = self._database
        try:
            if error is None:
                try:
                    database.db.execute("COMMIT")
                    return
                except BaseException as failed:
                    error = failed
            if database.db.in_transaction:
                database.db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise database.told(error) from error
            if kind is None:
                raise error  # of COMMIT
        finally:
            database.lock.release()


def begin_when_free(db: sqlite3.Connection, busy: sqlite3.OperationalError) -> None:
    """Looks again every tenth of a millisecond: the others hold the lock shortly, and SQLite itself would sleep 1 ms,
    then 2, 5, 10 …"""
    until_s = monotonic() + trouble.BUSY_TIMEOUT_MS / 1000
    while busy.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY and monotonic() < until_s:
        sleep(LOOK_EVERY_S)
        try:
            db.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            busy = error
    raise busy
