"""The tables of the outbox's file. They only ever grow, so that an older runtime goes on with the queue after a rollback.

- VERSION is the format of the file, and stays. What a later runtime needs more is appended to EXPANSIONS, and nothing there is
  ever changed or removed: new tables, indexes that are not unique, and columns that may be NULL or have a default.
- So a runtime may meet tables, columns, streams and rows of `meta` that it does not know. It leaves them as they are; therefore
  every INSERT here names its columns, and no row is replaced whole.
- A stream that is new is a table, and a row in `stream`: an older runtime keeps its records for the newer one.
"""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
from typing import Any

from edge_runtime.wire.envelope import STREAMS

VERSION = 2

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


#: in the order in which they came; `meta` counts under `expansions` how many a file has
EXPANSIONS: tuple[str, ...] = ()
ALLOWED = re.compile(
    r"CREATE TABLE \w+ \(.*\)|CREATE INDEX \w+ ON .*|INSERT INTO stream \(.*\) VALUES \(.*\)|"
    r"ALTER TABLE \w+ ADD COLUMN (?!.*(NOT NULL(?!.* DEFAULT )|UNIQUE|PRIMARY|REFERENCES|CHECK)).*",
    re.DOTALL,
)


def make(db: sqlite3.Connection, version: int, damaged: str | None) -> None:
    """The tables, within a transaction; what a file of `version` 1 held is kept under ``version_1`` in `meta`, and the name
    of the `damaged` file in whose place this one comes under ``damage``, both until they were told."""
    old = _take_version_1(db) if version == 1 else []
    for statement in _SCHEMA.split(";"):
        db.execute(statement)
    for stream in STREAMS:
        db.execute(_EVENTS.format(stream))
    columns = "name, head, hash, stored, acked, gone, gone_bytes, thinned, last"
    row = f"INSERT INTO stream ({columns}) VALUES (?, 0, '', 0, 0, 0, 0, 0, NULL)"
    db.executemany(row, [(stream,) for stream in STREAMS])
    first = [("chain", secrets.token_hex(8)), ("version_1", json.dumps(old) if old else None), ("damage", damaged)]
    db.executemany("INSERT INTO meta (name, value) VALUES (?, ?)", first)
    db.execute(f"PRAGMA user_version = {VERSION}")


def expand(db: sqlite3.Connection) -> None:
    """What this runtime has more than the file, within a transaction. One that has more already is left as it is."""
    row = db.execute("SELECT value FROM meta WHERE name = 'expansions'").fetchone()
    done = row[0] if row else 0
    for statement in EXPANSIONS[done:]:
        db.execute(statement)
    if len(EXPANSIONS) > done:
        text = "INSERT INTO meta (name, value) VALUES ('expansions', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        db.execute(text, (len(EXPANSIONS),))


def _take_version_1(db: sqlite3.Connection) -> list[Any]:
    """What still waited in a queue of schema 1, which knew no chain: [stream, kind, body] in order."""
    found = db.execute("SELECT stream, data FROM event ORDER BY priority, stream, seq").fetchall()
    db.execute("DROP TABLE event")
    db.execute("DROP TABLE stream")
    events = [(stream, json.loads(data)) for stream, data in found]
    return [[stream, event["kind"], event["body"]] for stream, event in events]
