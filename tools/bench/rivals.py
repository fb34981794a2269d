"""Other durable queues, brought to the same promise (the item is on the disk when the call returns) and the same payload.

Each is a function that puts one text; what is not installed (extra `bench`) gives a reason instead."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

Put = Callable[[str], object]


def _persist_queue(folder: Path) -> Put:
    import persistqueue

    queue = persistqueue.SQLiteAckQueue(str(folder / "persist"), multithreading=True, auto_commit=True)
    queue._conn.execute("PRAGMA synchronous = FULL")
    queue._putter.execute("PRAGMA synchronous = FULL")
    return lambda text: queue.put(text)


def _litequeue(folder: Path) -> Put:
    import litequeue

    queue = litequeue.LiteQueue(str(folder / "lite.db"))
    queue.conn.execute("PRAGMA synchronous = FULL")
    return lambda text: queue.put(text)


def _diskcache(folder: Path) -> Put:
    import diskcache

    cache = diskcache.Cache(str(folder / "diskcache"), eviction_policy="none", sqlite_synchronous=2)
    queue = diskcache.Deque.fromcache(cache)
    return lambda text: queue.append(text)


def bare_insert(folder: Path, data: bytes) -> Callable[[int], None]:
    """What SQLite itself takes, through Python's sqlite3 and with a WAL and FULL as the outbox has them: so many rows of
    `data` in one transaction. The practical floor of a queue that several processes share."""
    db = sqlite3.connect(folder / "bare.db", isolation_level=None)
    for setting in (
        "auto_vacuum = INCREMENTAL",
        "journal_mode = WAL",
        "wal_autocheckpoint = 512",
        "synchronous = FULL",
    ):
        db.execute(f"PRAGMA {setting}")
    db.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, data BLOB NOT NULL)")

    def insert(rows: int) -> None:
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO item (data) VALUES (?)", [(data,)] * rows)
        db.execute("COMMIT")

    return insert


RIVALS: dict[str, Callable[[Path], Put]] = {
    "persist-queue SQLiteAckQueue": _persist_queue,
    "litequeue, synchronous FULL": _litequeue,
    "diskcache.Deque, synchronous FULL": _diskcache,
}


def rivals(folder: Path, refused: list[dict[str, str]]) -> Iterator[tuple[str, Put]]:
    for name, make in RIVALS.items():
        try:
            yield name, make(folder)
        except ImportError as error:
            refused.append({"name": name, "reason": f"{error}; install it with: pip install 'gudgeon[bench]'"})
