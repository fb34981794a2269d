"""The tables of the outbox's file. The schema only ever grows, so that an older runtime still reads the queue after a
rollback."""

from __future__ import annotations

import json
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


def make(db: sqlite3.Connection, version: int, damaged: str | None) -> None:
    """The tables, within a transaction; what a file of `version` 1 held is kept under ``version_1`` in `meta`, and the name
    of the `damaged` file in whose place this one comes under ``damage``, both until they were told."""
    old = _take_version_1(db) if version == 1 else []
    for statement in _SCHEMA.split(";"):
        db.execute(statement)
    for stream in STREAMS:
        db.execute(_EVENTS.format(stream))
    db.executemany("INSERT INTO stream VALUES (?, 0, '', 0, 0, 0, 0, 0, NULL)", [(stream,) for stream in STREAMS])
    first = [("chain", secrets.token_hex(8)), ("version_1", json.dumps(old) if old else None), ("damage", damaged)]
    db.executemany("INSERT INTO meta VALUES (?, ?)", first)
    db.execute(f"PRAGMA user_version = {VERSION}")


def _take_version_1(db: sqlite3.Connection) -> list[Any]:
    """What still waited in a queue of schema 1, which knew no chain: [stream, kind, body] in order."""
    found = db.execute("SELECT stream, data FROM event ORDER BY priority, stream, seq").fetchall()
    db.execute("DROP TABLE event")
    db.execute("DROP TABLE stream")
    events = [(stream, json.loads(data)) for stream, data in found]
    return [[stream, event["kind"], event["body"]] for stream, event in events]
