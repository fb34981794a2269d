"""Every copy of a store in use comes back as it was at that moment; a damaged one is told."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.backup.sqlite_copies import DAY_NS, SqliteCopies
from edge_runtime.errors import DataError

S = 1_000_000_000


class Counter:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += S
        return self.now_ns


def opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS kept (n INTEGER PRIMARY KEY, body BLOB)")
    return connection


def content(path: Path) -> list[tuple[int, bytes]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT n, body FROM kept ORDER BY n").fetchall()
    finally:
        connection.close()


ACTS: dict[str, Callable[[sqlite3.Connection, int], object]] = {
    "insert": lambda c, n: c.executemany(
        "INSERT OR REPLACE INTO kept VALUES (?, ?)", [(n + i, bytes([n % 256]) * 900) for i in range(30)]
    ),
    "update": lambda c, n: c.execute("UPDATE kept SET body = ? WHERE n % 7 = 1", (bytes([n % 256]) * 500,)),
    "delete": lambda c, n: c.execute("DELETE FROM kept WHERE n > ?", (n,)),
    "vacuum": lambda c, n: c.execute("VACUUM"),
    "checkpoint": lambda c, n: c.execute("PRAGMA wal_checkpoint(TRUNCATE)"),
}


@settings(max_examples=8, deadline=None)
@given(acts=st.lists(st.tuples(st.sampled_from(sorted(ACTS)), st.integers(0, 300)), min_size=1, max_size=8))
def test_every_copy_comes_back_as_it_was(acts: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("copies")
    database, copies = folder / "cloud.db", SqliteCopies(folder / "sqlite", Counter())
    connection, kept = opened(database), dict[int, list[tuple[int, bytes]]]()
    for act, n in [("insert", 0), *acts]:
        ACTS[act](connection, n)
        at_ns = copies.copy(database)
        if at_ns is not None:
            kept[at_ns] = content(database)
    connection.close()
    for number, (at_ns, rows) in enumerate(kept.items()):
        into = folder / f"restored-{number}.db"
        assert copies.restore(at_ns, into) == at_ns
        assert content(into) == rows
        assert sqlite3.connect(into).execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.fixture
def filled(tmp_path: Path) -> tuple[Path, SqliteCopies]:
    """A base and three changes."""
    database, copies = tmp_path / "cloud.db", SqliteCopies(tmp_path / "sqlite", Counter())
    connection = opened(database)
    for n in range(4):
        ACTS["insert"](connection, 100 * n)
        assert copies.copy(database) is not None
    connection.close()
    return database, copies


def names(tmp_path: Path) -> list[str]:
    return [p.suffix for p in sorted((tmp_path / "sqlite").glob("*.*")) if p.name[0] != "."]


def test_a_copy_is_made_where_something_was_committed_only(filled: tuple[Path, SqliteCopies], tmp_path: Path) -> None:
    database, copies = filled
    assert names(tmp_path) == [".base", ".change", ".change", ".change"]
    seen_ns = copies.seen_ns()
    assert copies.copy(database) is None
    assert copies.seen_ns() > seen_ns
    assert names(tmp_path) == [".base", ".change", ".change", ".change"]
    sizes = [p.stat().st_size for p in sorted((tmp_path / "sqlite").glob("*.change"))]
    assert max(sizes) < database.stat().st_size / 4


def test_a_moment_is_the_last_copy_before_it(filled: tuple[Path, SqliteCopies], tmp_path: Path) -> None:
    _, copies = filled
    times = copies.times()
    assert copies.restore(times[1] + 1, tmp_path / "a.db") == times[1]
    assert len(content(tmp_path / "a.db")) == 60
    assert copies.restore(None, tmp_path / "b.db") == times[3]
    with pytest.raises(DataError, match="no copy of the store is old enough"):
        copies.restore(times[0] - 1, tmp_path / "c.db")


def test_a_process_that_begins_anew_begins_with_a_base(filled: tuple[Path, SqliteCopies], tmp_path: Path) -> None:
    clock = Counter()
    clock.now_ns = 1000 * S
    assert SqliteCopies(tmp_path / "sqlite", clock).copy(filled[0]) == 1002 * S
    assert names(tmp_path)[-1] == ".base"


def test_copies_that_no_kept_moment_needs_are_deleted(tmp_path: Path) -> None:
    clock, database = Counter(), tmp_path / "cloud.db"
    copies, connection = SqliteCopies(tmp_path / "sqlite", clock), opened(database)
    for n in range(6):
        clock.now_ns += DAY_NS // 2
        ACTS["insert"](connection, n)
        copies.copy(database)
    assert names(tmp_path) == [".base", ".change", ".base", ".change", ".base", ".change"]
    times = copies.times()
    assert copies.prune(times[3]) == 2
    assert copies.times() == times[2:]
    assert copies.restore(times[3], tmp_path / "a.db") == times[3]


def test_what_comes_back_is_right_or_refused(filled: tuple[Path, SqliteCopies], tmp_path: Path) -> None:
    database, copies = filled
    right, refused = content(database), 0
    for path, at in itertools.product(sorted((tmp_path / "sqlite").glob("[0-9]*.*")), (3, 30, 400, -20, -1)):
        whole = path.read_bytes()
        at = at % len(whole)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            copies.restore(None, tmp_path / "a.db")
        except DataError:
            refused += 1
        else:  # a page that a later copy has, too
            assert content(tmp_path / "a.db") == right
        (tmp_path / "a.db").unlink(missing_ok=True)
        path.write_bytes(whole)
    assert refused >= 12


def test_a_missing_copy_is_told(filled: tuple[Path, SqliteCopies], tmp_path: Path) -> None:
    _, copies = filled
    sorted((tmp_path / "sqlite").glob("*.change"))[0].unlink()
    with pytest.raises(DataError, match="is missing; restore an earlier moment"):
        copies.restore(None, tmp_path / "a.db")
