"""The outbox's file only grows: what this runtime writes is fixed here, and it goes on with the file of a later one."""

from __future__ import annotations

import ast
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.outbox import appending, schema
from edge_runtime.outbox.policy import DAY_S, ClassPolicy, Storage
from edge_runtime.outbox.store import Outbox
from edge_runtime.wire.envelope import STREAMS

#: format 2 as it was released; a difference is a change that older runtimes cannot live with: append to EXPANSIONS instead
TABLES: Mapping[str, str] = {
    "meta": "name TEXT PRIMARY KEY, value",
    "stream": "name TEXT PRIMARY KEY, head INTEGER NOT NULL, hash TEXT NOT NULL, stored INTEGER NOT NULL, "
    "acked INTEGER NOT NULL, gone INTEGER NOT NULL, gone_bytes INTEGER NOT NULL, thinned INTEGER NOT NULL, last BLOB",
    "shed": "stream TEXT NOT NULL, policy TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, every INTEGER NOT NULL, "
    "id INTEGER NOT NULL, prev_hash TEXT NOT NULL, first_hash TEXT NOT NULL, last_hash TEXT NOT NULL, "
    "since_wall_ns INTEGER NOT NULL, until_wall_ns INTEGER NOT NULL, PRIMARY KEY (stream, policy, first)",
    "shed_total": "stream TEXT NOT NULL, policy TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (stream, policy)",
    **dict.fromkeys(
        (
            f"event_{s}"
            for s in ["alarm", "fault", "decision", "command", "health", "link", "telemetry", "metric", "review"]
        ),
        "seq INTEGER PRIMARY KEY, tick_s INTEGER NOT NULL, cum INTEGER NOT NULL, data BLOB NOT NULL",
    ),
}
#: what a later runtime might need
LATER = (
    "CREATE TABLE later (id INTEGER PRIMARY KEY, text TEXT)",
    "CREATE INDEX event_decision_tick ON event_decision (tick_s)",
    *(f"ALTER TABLE event_{stream} ADD COLUMN place TEXT" for stream in STREAMS),
    "ALTER TABLE shed ADD COLUMN why TEXT NOT NULL DEFAULT 'budget'",
    "ALTER TABLE shed_total ADD COLUMN size_bytes INTEGER DEFAULT 0",
    "ALTER TABLE stream ADD COLUMN paused INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE meta ADD COLUMN note TEXT",
    "CREATE TABLE event_vibration (seq INTEGER PRIMARY KEY, tick_s INTEGER NOT NULL, cum INTEGER NOT NULL, data BLOB NOT NULL)",
    "INSERT INTO stream (name, head, hash, stored, acked, gone, gone_bytes, thinned) VALUES ('vibration', 1, 'h', 9, 0, 0, 0, 0)",
)


class Device:
    """The same file, opened by runtimes in turn."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self._patch, self.clock = path, monkeypatch, FakeClock()

    def runtime(self, later: bool, storage: Storage | None = None) -> Outbox:
        self._patch.setattr(schema, "EXPANSIONS", LATER if later else ())
        return Outbox(self.path, "d", "boot", self.clock, storage)

    def ask(self, text: str) -> list[Any]:
        with sqlite3.connect(self.path) as db:
            return db.execute(text).fetchall()


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(tmp_path / "outbox.db", monkeypatch)


def columns(sql: str) -> str:
    return " ".join(sql[sql.index("(") + 1 : sql.rindex(")")].split())


def test_the_format_is_the_one_that_was_released(device: Device) -> None:
    device.runtime(later=False).close()
    tables = device.ask("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    assert {name: columns(sql) for name, sql in tables} == TABLES
    assert device.ask("PRAGMA user_version") == [(2,)]
    assert device.ask("SELECT name FROM sqlite_master WHERE type NOT IN ('table', 'index')") == []


def test_what_is_appended_only_adds() -> None:
    for statement in (*schema.EXPANSIONS, *LATER):
        assert schema.ALLOWED.fullmatch(statement), statement


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE later",
        "ALTER TABLE stream DROP COLUMN gone",
        "ALTER TABLE stream RENAME COLUMN gone TO went",
        "ALTER TABLE stream ADD COLUMN x INTEGER NOT NULL",
        "ALTER TABLE stream ADD COLUMN x TEXT UNIQUE",
        "CREATE UNIQUE INDEX i ON event_alarm (tick_s)",
        "CREATE TRIGGER t AFTER INSERT ON event_alarm BEGIN DELETE FROM event_alarm; END",
        "UPDATE stream SET head = 0",
        "PRAGMA user_version = 3",
    ],
)
def test_what_an_older_runtime_cannot_live_with_is_not_allowed(statement: str) -> None:
    assert not schema.ALLOWED.fullmatch(statement)


def test_every_insert_names_its_columns_and_none_replaces_a_row() -> None:
    found = []
    for file in Path(schema.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and re.match("INSERT|REPLACE", node.value)
            ):
                found.append(node.value)
    assert len(found) >= 6
    for statement in found:
        assert re.match(r"INSERT INTO (event_$|[a-z_]+ \()", statement), (
            statement
        )  # event_ is followed by a name, see below
    assert all("(seq, tick_s, cum, data)" in statement for statement in appending._INSERT.values())


def test_runtimes_take_turns_and_nothing_is_lost(device: Device) -> None:
    """Old, later, old, later: each appends, sends some and has some acknowledged; the chain has no gap."""
    lines: dict[int, bytes] = {}
    for turn in range(6):
        box = device.runtime(later=bool(turn % 2))
        box.append_many([("decision", f"kind of {turn}", {"turn": turn, "new": [turn]}) for _ in range(5)])
        box.append("alarm", "raised", {"turn": turn})
        for record in box.pending():
            if record.stream == "decision":
                assert lines.setdefault(record.seq, record.line) == record.line
        box.ack({"decision": 5 * turn + 2})
        box.checkpoint()
        assert (box.head("decision"), box.head("alarm")) == (5 * turn + 5, turn + 1)
        assert set(box.backlog()) == {"decision", "alarm"}
        last = box.last("decision")
        assert last is not None
        assert (last.seq, last.body["turn"]) == (5 * turn + 5, turn)
        box.close()
    assert sorted(lines) == list(range(1, 31))
    assert device.ask("SELECT value FROM meta WHERE name = 'expansions'") == [(len(LATER),)]


def test_what_a_later_runtime_keeps_is_left_alone(device: Device) -> None:
    device.runtime(later=True).close()
    with sqlite3.connect(device.path) as db:
        db.execute("INSERT INTO later (text) VALUES ('kept')")
        db.execute("INSERT INTO event_vibration (seq, tick_s, cum, data) VALUES (1, 0, 9, x'00')")
        db.execute("INSERT INTO meta (name, value, note) VALUES ('later', 1, 'kept')")
        db.execute("UPDATE meta SET note = 'kept' WHERE name = 'tick_base_s'")
        db.execute("UPDATE stream SET paused = 1 WHERE name = 'alarm'")
    db.close()
    before = [device.ask(f"SELECT * FROM {table}") for table in ("later", "event_vibration")]
    box = device.runtime(later=False)
    box.append_many([("alarm", "k", {})] * 3)
    box.ack({"alarm": 2})
    box.maintain()
    box.checkpoint()
    box.close()
    assert [device.ask(f"SELECT * FROM {table}") for table in ("later", "event_vibration")] == before
    assert device.ask("SELECT paused FROM stream WHERE name = 'alarm'") == [(1,)]
    assert device.ask("SELECT name FROM meta WHERE note = 'kept' ORDER BY name") == [("later",), ("tick_base_s",)]
    assert device.runtime(later=True).head("alarm") == 3


def test_giving_up_records_goes_on_in_a_later_file(device: Device) -> None:
    device.runtime(later=True).close()
    box = device.runtime(later=False, storage=Storage(classes={"metric": ClassPolicy(retention_s=DAY_S)}))
    box.append_many([("metric", "k", {})] * 20)
    device.clock.advance(2 * DAY_S)
    box.append("metric", "k", {})
    box.maintain()
    assert box.shed_totals() == {("metric", "retention"): 20}
    assert box.checkpoint().shed
    box.close()
    assert device.ask("SELECT why FROM shed") == [("budget",)]
    assert device.ask("SELECT size_bytes FROM shed_total") == [(0,)]
