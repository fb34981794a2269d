"""What crash points have found (`python -m tools.crash`), one small test each."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.outbox import schema
from edge_runtime.outbox.database import Database
from edge_runtime.outbox.policy import ClassPolicy, Storage
from edge_runtime.outbox.store import Outbox

KEPT_S = 60
VERSION_1 = """
CREATE TABLE event (stream TEXT NOT NULL, seq INTEGER NOT NULL, priority INTEGER NOT NULL, data TEXT NOT NULL,
  PRIMARY KEY (stream, seq)) WITHOUT ROWID;
CREATE TABLE stream (name TEXT PRIMARY KEY, head INTEGER NOT NULL, last TEXT) WITHOUT ROWID;
PRAGMA user_version = 1;
"""


class PowerCutError(Exception):
    pass


def cut(*_: Any, **__: Any) -> None:
    raise PowerCutError


def bodies(box: Outbox) -> list[Any]:
    return [json.loads(record.line)["body"] for record in box.pending()]


def test_a_range_that_a_checkpoint_names_is_flushed_though_nothing_new_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, flushes = FakeClock(), list[int]()
    storage = Storage(budget_bytes=0, classes={"metric": ClassPolicy(retention_s=KEPT_S)})
    box = Outbox(tmp_path / "outbox.db", "edge1", "boot1", clock, storage)
    box.append_many([("metric", "m", {})] * 3)
    box.checkpoint()
    monkeypatch.setattr(Database, "sync", lambda self: flushes.append(1))
    assert box.checkpoint().shed == []
    assert not flushes, "nothing new, nothing to flush"
    clock.advance(KEPT_S + 1)
    box.maintain()
    assert len(box.checkpoint().shed) == 1
    assert len(flushes) == 1
    box.checkpoint()
    assert len(flushes) == 1


def test_a_queue_of_schema_1_is_taken_over_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "outbox.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_1)
        row = ("decision", 1, 2, json.dumps({"kind": "decision", "body": {"n": 1}}))
        db.execute("INSERT INTO event VALUES (?, ?, ?, ?)", row)
        db.commit()
    put = Database.put

    def cut_at_the_end(self: Database, name: str, value: Any) -> None:
        if name == "version_1" and value is None and self.get("version_1"):
            cut()
        put(self, name, value)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "put", cut_at_the_end)
        with pytest.raises(PowerCutError):
            Outbox(path, "edge1", "boot1", FakeClock())
    for _ in range(2):
        box = Outbox(path, "edge1", "boot1", FakeClock())
        assert bodies(box) == [{"n": 1}]
        box.close()


def test_of_several_processes_one_takes_a_queue_of_schema_1_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outbox.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(VERSION_1)
        db.execute("INSERT INTO event VALUES ('alarm', 1, 0, ?)", (json.dumps({"kind": "alarm", "body": {"n": 1}}),))
        db.commit()
    store, opened = Outbox._store_once, list[Outbox]()

    def after_another(self: Outbox, *arguments: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Outbox, "_store_once", store)
            opened.append(Outbox(path, "edge1", "boot1", FakeClock()))
        store(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "_store_once", after_another)
        box = Outbox(path, "edge1", "boot1", FakeClock())
    assert len(opened) == 1
    assert bodies(box) == bodies(opened[0]) == [{"n": 1}]


@pytest.mark.parametrize("before", ["_tell_damage", "the new file"])
def test_damage_is_told_though_a_crash_came_before_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"\xa5" * 8192)
    with monkeypatch.context() as patch:
        if before == "_tell_damage":
            patch.setattr(Outbox, before, cut)
        else:
            patch.setattr(schema, "make", cut)
        with pytest.raises(PowerCutError):
            Outbox(path, "edge1", "boot1", FakeClock())
    box = Outbox(path, "edge1", "boot2", FakeClock())
    (kept,) = (p.name for p in tmp_path.glob("outbox.db.damaged-*"))
    assert [body["kept_as"] for body in bodies(box)] == [kept]
    box.close()
    assert len(bodies(Outbox(path, "edge1", "boot3", FakeClock()))) == 1, "told once"
