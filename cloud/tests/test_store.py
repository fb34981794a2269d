"""The store: once each, contiguous heads, counters that agree with the rows."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, inspect, text

from cloud.messages import Connected, Rejection, Status
from cloud.store import migrations, queries, writing
from cloud.store.migrations import migrate
from cloud.store.opening import open_store, store_url
from cloud.store.tables import metadata
from cloud.tests.databases import commit
from cloud.tests.made import PLACE, batch, decision, event
from edge_runtime.errors import ResourceError
from edge_runtime.wire.envelope import Event


def put(engine: Engine, *events: Event) -> Mapping[str, int]:
    return commit(engine, [batch(events)], 1)[0][1].committed


def seqs(engine: Engine, stream: str = "decision") -> list[int]:
    return sorted(row["seq"] for row in queries.events(engine, {"stream": stream}))


def test_a_replay_changes_nothing_and_is_acknowledged_again(engine: Engine) -> None:
    first = put(engine, decision(1), decision(2))
    before = queries.tallies(engine)
    assert put(engine, decision(1), decision(2), decision(2)) == first == {"decision": 2}
    assert queries.tallies(engine) == before
    assert seqs(engine) == [1, 2]


def test_a_gap_holds_the_acknowledgement_until_it_is_filled(engine: Engine) -> None:
    assert put(engine, decision(1)) == {"decision": 1}
    assert put(engine, decision(3), decision(4)) == {"decision": 1}
    assert put(engine, decision(6)) == {"decision": 1}
    assert put(engine, decision(2)) == {"decision": 4}
    assert put(engine, decision(5)) == {"decision": 6}


def test_what_a_device_no_longer_holds_is_not_waited_for(engine: Engine) -> None:
    """A cloud that began anew, and an outbox that was damaged: both leave a gap that never fills."""

    def put_from(floor: int, *numbers: int) -> Mapping[str, int]:
        return commit(engine, [batch([decision(n) for n in numbers], {"decision": floor})], 1)[0][1].committed

    assert put(engine, decision(7), decision(9)) == {"decision": 0}
    assert put_from(7, 10) == {"decision": 7}
    assert put_from(1, 8) == {"decision": 10}
    assert put_from(5_000, 5_000) == {"decision": 5_000}
    assert put_from(3, 5_001) == {"decision": 5_001}


def test_streams_and_devices_have_heads_of_their_own(engine: Engine) -> None:
    assert put(engine, decision(1), event(2, "metric", "control"), event(1, "metric", "control")) == {
        "decision": 1,
        "metric": 2,
    }
    other = replace(PLACE, device="dev2")
    acks = commit(engine, [batch([event(2, "metric", "control", "dev2")], place=other), batch([decision(2)])], 1)
    assert {place: ack.committed for place, ack in acks} == {other: {"metric": 0}, PLACE: {"decision": 2}}


def test_what_a_stored_event_holds_never_changes(engine: Engine) -> None:
    put(engine, decision(1, reason="first"))
    put(engine, decision(1, reason="second"))
    assert [row["reason"] for row in queries.decisions(engine, {})] == ["first"]


def test_duplicates_are_parts_with_more_than_one_event(engine: Engine) -> None:
    put(engine, decision(1, 10), decision(2, 10), decision(3, 10, kind="unrecorded"), decision(4, 11))
    put(engine, decision(5, 11), decision(6, 12, kind="unrecorded"), event(7, part="?"))
    found = queries.tallies(engine)
    assert (found["parts"], found["duplicates"]) == (3, 2)
    assert (found["kind:decision"], found["kind:unrecorded"]) == (5, 2)


def test_values_of_another_type_are_null_and_the_event_is_kept(engine: Engine) -> None:
    odd = event(1, part_epoch="x", part_seq=True, result=2**70, score=10**400, reason="half \ud800", latency_us=None)
    put(engine, odd)
    (row,) = queries.decisions(engine, {})
    assert [row[name] for name in ("part_epoch", "part_seq", "result", "score", "latency_us")] == [None] * 5
    assert row["reason"] == "half ?"
    assert queries.events(engine, {})[0]["body"]["reason"] == "half ?"


def test_the_latest_metric_is_the_one_with_the_highest_seq(engine: Engine) -> None:
    put(engine, event(2, "metric", "control", outbox_depth=2))
    put(engine, event(1, "metric", "control", outbox_depth=1))
    (device,) = queries.devices(engine)
    assert device["latest"]["metric/control"]["body"] == {"outbox_depth": 2}
    assert device["committed"] == {"metric": 2}


def test_a_new_connection_forgets_who_is_online(engine: Engine) -> None:
    commit(engine, [Status(PLACE, True, "b1")], 1)
    assert queries.devices(engine)[0]["online"] is True
    commit(engine, [Connected()], 2)
    assert queries.devices(engine)[0]["online"] is False


def test_rejections_are_counted_and_bounded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "REJECTIONS_KEPT", 3)
    commit(engine, [Rejection("t", f"reason {i}", 1) for i in range(5)], 1)
    assert [row["reason"] for row in queries.rejections(engine, 0, 10)] == ["reason 2", "reason 3", "reason 4"]
    assert queries.tallies(engine)["rejections"] == 5


batches = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=6), min_size=1, max_size=8)


@settings(max_examples=30, deadline=None)
@given(batches, st.data())
def test_any_order_of_any_replays_ends_the_same(sent: Sequence[Sequence[int]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = open_store(f"sqlite:///{Path(folder) / 'c.db'}")
        stored: set[int] = set()
        rest = list(sent)
        while rest:
            together = data.draw(st.integers(1, len(rest)))
            taken, rest = rest[:together], rest[together:]
            acks = commit(engine, [batch([decision(s, 1 + s // 2) for s in b]) for b in taken], 1)
            stored |= {s for b in taken for s in b}
            contiguous = next(n for n in range(14) if n + 1 not in stored)
            assert acks[0][1].committed["decision"] == contiguous
        parts = Counter(1 + s // 2 for s in stored)
        found = queries.tallies(engine)
        assert seqs(engine) == sorted(stored)
        assert found["parts"] == len(parts)
        assert found.get("duplicates", 0) == sum(n > 1 for n in parts.values())
        assert found["kind:decision"] == found["result:1"] == len(stored)
        engine.dispose()


def test_the_migrations_make_the_tables_that_the_queries_use(engine: Engine) -> None:
    found = inspect(engine)
    assert set(found.get_table_names()) - {"alembic_version"} == set(metadata.tables)
    for name, table in metadata.tables.items():
        made = {c["name"]: (_type(c["type"]), c["nullable"]) for c in found.get_columns(name)}
        assert made == {c.name: (_type(c.type.dialect_impl(engine.dialect)), c.nullable) for c in table.columns}, name


def _type(found: object) -> str:
    return {"DOUBLE PRECISION": "FLOAT", "VARCHAR": "TEXT"}.get(str(found), str(found))


def test_a_store_opens_again_with_what_it_holds(engine: Engine) -> None:
    put(engine, decision(1))
    again = open_store(store_url(engine.url.set(drivername=engine.dialect.name).render_as_string(False)))
    assert seqs(again) == [1]
    assert put(again, decision(2)) == {"decision": 2}
    again.dispose()


LATER = """from alembic import op
revision, down_revision = "9999", "{}"
def upgrade():
    for statement in {!r}:
        op.execute(statement)
"""


def test_a_later_migration_runs_once_and_a_failing_one_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    folder = shutil.copytree(migrations.HERE, tmp_path / "migrations")
    later = folder / "versions" / "9999_later.py"
    later.write_text(LATER.format(migrations.newest(), ["CREATE TABLE half (x TEXT)", "NOT SQL"]))
    with pytest.raises(Exception, match="NOT"):
        migrate(engine, folder)
    assert "half" not in inspect(engine).get_table_names()
    later.write_text(LATER.format(migrations.newest(), ["CREATE TABLE later (x TEXT)"]))
    assert migrate(engine, folder) == migrate(engine, folder) == "9999"
    assert "later" in inspect(engine).get_table_names()
    with pytest.raises(ResourceError, match="a newer Gudgeon made this store"):
        migrate(engine)


def test_a_store_of_before_the_revisions_is_taken_over(tmp_path: Path) -> None:
    old = create_engine(f"sqlite:///{tmp_path / 'old.db'}")
    with old.begin() as connection:
        for name in ("0001_events_once", "0002_hash_chains"):
            found = importlib.import_module(f"cloud.store.migrations.versions.{name}")
            for statement in found.STATEMENTS:
                connection.execute(text(statement))
        connection.execute(text("CREATE TABLE schema_version (version INTEGER NOT NULL)"))
        connection.execute(text("INSERT INTO schema_version VALUES (2)"))
        values = "1, 'dev1', '', 'decision', 1, 'b', 'decision', 1, 77, 5, 2"
        connection.execute(text("INSERT INTO event VALUES (" + values + ", '{\"body\":{}}')"))
    old.dispose()
    engine = open_store(f"sqlite:///{tmp_path / 'old.db'}")
    (row,) = queries.events(engine, {})
    assert (row["time_ns"], row["time_source"]) == (77, "device")
    assert "schema_version" not in inspect(engine).get_table_names()
    engine.dispose()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, and long enough to be looked at as one" * 20)
    with pytest.raises(ResourceError, match=r"text\.db: cannot be used"):
        open_store(f"sqlite:///{tmp_path / 'text.db'}")
    with pytest.raises(ResourceError, match="nowhere"):
        open_store(f"sqlite:///{tmp_path / 'nowhere' / 'c.db'}")


def test_the_store_is_safe_against_a_power_cut(sqlite: Engine) -> None:
    with sqlite.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2


def test_a_store_is_made_once_by_those_that_begin_together_while_another_writes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'c.db'}"
    open_store(url).dispose()
    behind = create_engine(url)
    with behind.begin() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
        for name in metadata.tables:
            connection.execute(text(f"DROP TABLE {name}"))
    opened: list[Engine] = []
    with behind.connect() as busy:
        busy.exec_driver_sql("BEGIN IMMEDIATE")
        threads = [threading.Thread(target=lambda: opened.append(open_store(url))) for _ in range(3)]
        for thread in threads:
            thread.start()
        busy.rollback()
    for thread in threads:
        thread.join()
    assert len(opened) == 3
    for engine in (behind, *opened):
        engine.dispose()
