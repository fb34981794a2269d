"""The outbox in trouble: a full disk, a damaged file, one that is locked or cannot be read. Nothing is lost in silence."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.errors import ResourceError
from edge_runtime.outbox import trouble
from edge_runtime.outbox.store import Outbox
from edge_runtime.wire.envelope import Record, read_record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def opened(path: Path) -> Outbox:
    return Outbox(path, "edge1", "boot1", FakeClock(5, 7))


def seqs(events: list[Record], stream: str = "decision") -> list[int]:
    return [e.seq for e in events if e.stream == stream]


def test_a_full_disk_writes_nothing_by_half_and_goes_on_later(path: Path) -> None:
    box = opened(path)
    box.append("decision", "k", {})
    pages = box._db.db.execute("PRAGMA page_count").fetchone()[0]
    box._db.db.execute(f"PRAGMA max_page_count = {pages + 2}")
    stored = 1
    with pytest.raises(ResourceError, match="the disk is full; free some space") as caught:  # noqa: PT012
        for _ in range(1000):
            box.append_many([("decision", "k", {"x": "y" * 500}), ("alarm", "k", {"x": "y" * 500})])
            stored += 1
    assert str(path) in str(caught.value)
    assert (box.head("decision"), box.head("alarm")) == (stored, stored - 1)
    assert seqs(box.pending(limit_events=10_000)) == list(range(1, stored + 1))
    box._db.db.execute("PRAGMA max_page_count = 100000")
    assert box.append("decision", "k", {}).seq == stored + 1


def test_an_interrupt_in_a_commit_fails_the_whole_group(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = opened(path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(box._rows, "_add", interrupt)
        with pytest.raises(KeyboardInterrupt):
            box.append("decision", "k", {})
    assert box.append("decision", "k", {}).seq == 1


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))


def broken_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 : 4096 + 3000] = b"\xff" * 3000
    path.write_bytes(content)


CALLS: dict[str, Callable[[Outbox], object]] = {
    "append": lambda box: box.append("decision", "k", {}),
    "pending": lambda box: box.pending(10**6, 10**9),
    "ack": lambda box: box.ack({"decision": 5000}),
    "checkpoint": lambda box: box.checkpoint(),
    "backlog": lambda box: box.backlog(),
    "last": lambda box: box.last("decision"),
    "head": lambda box: box.head("decision"),
    "floor": lambda box: box.floor(),
}


@pytest.mark.parametrize("damage", [garbage, broken_page])
def test_a_damaged_file_is_set_aside_and_told(path: Path, damage: Callable[[Path], None]) -> None:
    box = opened(path)
    for _ in range(50):
        box.append("decision", "k", {"x": "y" * 300})
    box.close()
    damage(path)
    broken = path.read_bytes()
    again = opened(path)
    told = again.last("fault")
    assert told is not None
    assert told.kind == "outbox_damaged"
    kept = path.with_name(told.body["kept_as"])
    assert kept.read_bytes() == broken
    assert again.last("decision") is None
    assert again.append("decision", "k", {}).seq == 1
    assert again.chain == told.body["chain"] != box.chain
    again.close()
    assert opened(path).depth() == 2
    assert opened(path).chain == again.chain


def test_two_that_meet_the_same_damage_set_one_file_aside(path: Path) -> None:
    opened(path).close()
    garbage(path)
    with ThreadPoolExecutor(8) as pool:
        boxes = list(pool.map(lambda _: opened(path), range(8)))
    assert len(list(path.parent.glob("*.damaged-*"))) == 1
    assert [read_record(r.line).kind for r in boxes[0].pending()] == ["outbox_damaged"]


def test_an_empty_file_is_a_new_outbox(path: Path) -> None:
    path.touch()
    assert opened(path).append("decision", "k", {}).seq == 1


def test_where_it_cannot_be(tmp_path: Path, path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot be written"):
        opened(tmp_path / "none" / "outbox.db")
    with pytest.raises(ResourceError, match="cannot be written"):
        opened(tmp_path)
    opened(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ResourceError, match="written by a newer Gudgeon"):
        opened(path)


def test_locked_by_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "BUSY_TIMEOUT_MS", 20)
    box = opened(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ResourceError, match="stayed locked for 20 ms"):
        box.append("decision", "k", {})
    with pytest.raises(ResourceError, match="stayed locked"):
        box.ack({"decision": 1})
    other.execute("ROLLBACK")
    assert box.append("decision", "k", {}).seq == 1


def test_reading_errors_are_told(path: Path) -> None:
    box = opened(path)
    box.close()
    for call in (box.pending, box.depth, lambda: box.head("decision"), lambda: box.last("decision")):
        with pytest.raises(ResourceError, match=r"outbox\.db"):
            call()


@pytest.mark.parametrize("name", CALLS)
def test_damage_that_is_met_while_open_is_healed_and_told_whatever_met_it(path: Path, name: str) -> None:
    filling = opened(path)
    for _ in range(50):
        filling.append_many([("decision", "k", {"x": "y" * 600})] * 100)
    filling.close()  # copies the log into the file
    box = opened(path)
    content = bytearray(path.read_bytes())
    for page in range(2 * 4096, len(content), 4096):
        content[page : page + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    before = box.chain
    box._db.db.execute("PRAGMA shrink_memory")  # what was read is forgotten
    CALLS[name](box)
    assert box.chain != before
    told = box.last("fault")
    assert told is not None
    assert (told.kind, told.body["chain"]) == ("outbox_damaged", box.chain)
    assert path.with_name(told.body["kept_as"]).exists()
    assert box.append("decision", "k", {}).seq == (2 if name == "append" else 1)
