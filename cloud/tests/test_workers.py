"""Several ingest workers: at once on one store, each with its share from Mosquitto, one of them killed."""

from __future__ import annotations

import socket
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, func, select, text

from cloud.ingest import Ingest
from cloud.messages import Rejection
from cloud.store import queries, spans
from cloud.store import tables as t
from cloud.store.database import Added, settled
from cloud.store.intervals import Span, merged, runs
from cloud.store.spans import Key
from cloud.store.writer import open_writer
from cloud.store.writing import store
from cloud.tests.databases import commit, empty_store
from cloud.tests.made import WAIT_S, FakeDevice, batch, chained, decision, event, payload, until
from cloud.tests.test_mosquitto import start
from edge_runtime.tests.mosquitto import MOSQUITTO
from edge_runtime.tests.waiting import free_port
from edge_runtime.wire.batch import Shed, shed_count
from edge_runtime.wire.topics import Place

WORKERS = 4


def test_workers_that_write_at_once_store_each_record_once(engine: Engine) -> None:
    """The same batches of two devices go to all workers, each in another order."""
    places = [Place("acme", "s", "a", "l", "c", name) for name in ("dev1", "dev2")]
    batches = [
        batch(events[i : i + 5], place=place)
        for place in places
        for events in [chained(decision(n)._replace(device=place.device) for n in range(1, 41))]
        for i in range(0, 40, 5)
    ]
    failed: list[BaseException] = []

    def work(turn: int) -> None:
        writer = open_writer(engine)
        try:
            for found in batches[turn * 4 :] + batches[: turn * 4]:
                writer.commit([found], turn + 1)
        except BaseException as error:
            failed.append(error)
        writer.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with engine.connect() as connection:
        e = t.event.c
        counted = connection.execute(select(e.device, func.count(), func.max(e.seq)).group_by(e.device))
        assert sorted(counted.all()) == [("dev1", 40, 40), ("dev2", 40, 40)]
        heads = connection.execute(select(t.stream_head.c.head, t.stream_head.c.duplicates)).all()
        assert heads == [(40, 40 * (WORKERS - 1))] * 2
        assert connection.execute(select(func.count()).select_from(t.finding)).scalar() == 0
    assert queries.tallies(engine)["parts"] == 80


def test_a_page_ends_before_what_is_still_being_written(tmp_path: Path) -> None:
    """A slow worker has taken lower ids than a quick one that has committed: a reader must not pass them by."""
    with empty_store("postgresql", tmp_path) as engine:
        commit(engine, [batch([event(1, "telemetry")])], 1)
        slow = engine.connect()
        taken = Added(slow).ids(3)
        commit(engine, [batch([event(1, "alarm")])], 1)
        with engine.connect() as connection:
            newest = connection.execute(select(func.max(t.event.c.id))).scalar_one()
            assert newest > max(taken)
            before = settled(connection)
        assert before is not None
        assert 1 <= before < min(taken)
        slow.close()
        with engine.connect() as connection:
            after = settled(connection)
        assert after is not None
        assert after >= newest


def test_rejections_are_committed_in_the_order_of_their_ids(tmp_path: Path) -> None:
    """A second worker waits, so that who pages never sees a higher id before a lower one."""
    waiting = """SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
    with empty_store("postgresql", tmp_path) as engine, engine.connect() as first:
        store(first, [Rejection("t", "first", 1)], 1)
        other = threading.Thread(target=commit, args=(engine, [Rejection("t", "second", 1)], 1))
        other.start()
        with engine.connect() as looking:
            assert until(lambda: bool(looking.execute(text(waiting)).scalar_one() == 1))
        assert queries.rejections(engine, 0, 10) == []
        first.commit()
        other.join()
        assert [row["reason"] for row in queries.rejections(engine, 0, 10)] == ["first", "second"]


@pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto: apt-get install mosquitto")
def test_what_a_dead_worker_had_goes_to_the_others(engine: Engine, tmp_path: Path) -> None:
    port = free_port()
    broker = start(tmp_path, port)
    workers = [Ingest(open_writer(engine), "127.0.0.1", port) for _ in range(2)]
    try:
        for worker in workers:
            worker.start()
        assert all(worker.connected.wait(WAIT_S) for worker in workers)
        device = FakeDevice(port)
        events = chained(decision(n) for n in range(1, 41))
        for n in range(20):
            device.send_raw("events", payload([events[n]]))
        assert until(lambda: all(w.counts["commits"] for w in workers))
        dead = workers.pop()
        dead._client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        dead.stop()
        for n in range(20, 40):
            device.send_raw("events", payload([events[n]]))
        assert until(lambda: len(queries.events(engine, {})) == 40)
        device.close()
    finally:
        for worker in workers:
            worker.stop()
        broker.kill()
        broker.wait()
    with engine.connect() as connection:
        assert connection.execute(select(t.stream_head.c.head)).scalar() == 40


KEY = Key("d", "c", "telemetry")
steps = st.lists(st.sets(st.integers(1, 60), min_size=1, max_size=12), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(steps, st.integers(2, 6))
def test_spans_are_those_of_a_plain_set_however_few_are_looked_at(sent: list[set[int]], chunk: int) -> None:
    """With a CHUNK so small that the slow ways are taken too."""
    before, spans.CHUNK = spans.CHUNK, chunk
    try:
        with tempfile.TemporaryDirectory() as folder, empty_store("sqlite", Path(folder)) as engine:
            stored: set[int] = set()
            for numbers in sent:
                with engine.begin() as connection:
                    found = spans.load(connection, {KEY: numbers})
                    fresh = found[KEY].fresh(numbers)
                    assert fresh == sorted(numbers - stored)
                    spans.save(connection, {KEY: (found[KEY], fresh)})
                stored |= numbers
                with engine.connect() as connection:
                    rows = [Span(*r) for r in connection.execute(select(t.span.c.first, t.span.c.last))]
                    head, top = connection.execute(select(t.stream_head.c.head, t.stream_head.c.top)).one()
                assert merged(rows) == sorted(rows) == runs(sorted(stored))
                assert head == next(n for n in range(62) if n + 1 not in stored)
                assert top == max(stored)
    finally:
        spans.CHUNK = before


def test_a_thinned_stream_moves_its_head(engine: Engine) -> None:
    """One in ten of 3 000 records is left; the rest is stated as given up."""
    kept = [e for e in chained(event(n, "telemetry") for n in range(1, 3001)) if e.seq % 10 == 0]
    gone = Shed(1, "telemetry", 1, 2999, 10, shed_count(1, 2999, 10), "thin", "0" * 64, "0" * 64, "0" * 64, 1, 2)
    for i in range(0, len(kept), 100):
        ack = commit(engine, [batch(kept[i : i + 100], shed=[gone])], 1)[0][1]
    assert ack.committed == {"telemetry": 3000}


def test_an_event_that_is_there_against_what_the_intervals_tell_is_stored_once(tmp_path: Path) -> None:
    events = chained(decision(n) for n in range(1, 6))
    with empty_store("postgresql", tmp_path) as engine:
        commit(engine, [batch(events[:3])], 1)
        with engine.begin() as connection:
            connection.execute(delete(t.span))
        commit(engine, [batch(events)], 2)
        assert [row["seq"] for row in queries.events(engine, {})] == [1, 2, 3, 4, 5]
        assert [row["seq"] for row in queries.decisions(engine, {})] == [1, 2, 3, 4, 5]
