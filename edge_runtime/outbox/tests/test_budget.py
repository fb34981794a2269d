"""The disk budget, by measuring the folder; what is given up, by counting; retention, by travelling in time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.errors import ResourceError
from edge_runtime.outbox.budget import du_bytes
from edge_runtime.outbox.policy import CLASSES, DAY_S, MIB, ClassPolicy, Storage, steps
from edge_runtime.outbox.store import Outbox
from edge_runtime.wire.batch import Shed
from edge_runtime.wire.envelope import STREAMS, Record, genesis, read_record, record_hash

TIGHT = Storage(budget_bytes=36 * MIB, reserve_bytes=MIB, staging_bytes=0)
FILLER = 26 * MIB  # something else in the folder, so that less is left to the outbox
NOISE = "".join(chr(33 + i * 7 % 90) for i in range(400))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def box(tmp_path: Path, clock: FakeClock) -> Outbox:
    (tmp_path / "bundle").write_bytes(b"x" * FILLER)
    return opened(tmp_path, clock)


def opened(folder: Path, clock: FakeClock, storage: Storage = TIGHT) -> Outbox:
    return Outbox(folder / "outbox.db", "edge1", "boot1", clock, storage)


def fill(box: Outbox, folder: Path, stream: str, commits: int, each: int = 100) -> None:
    """Append, and measure after every commit."""
    for n in range(commits):
        box.append_many([(stream, "k", {"n": n, "x": NOISE})] * each)
        assert du_bytes(folder) <= TIGHT.budget_bytes


def held(box: Outbox, stream: str) -> list[Record]:
    return box.pending(10**7, 10**12, streams=[stream])


def given_up(ranges: list[Shed], stream: str) -> set[int]:
    return {
        n
        for s in ranges
        if s.stream == stream
        for n in range(s.first, s.last + 1)
        if not s.every or n % s.every
    }  # fmt: skip


def check_statement(box: Outbox, stream: str) -> list[Shed]:
    """Every number is held or given up, none is both, and the hashes lead from one to the other."""
    shed = [s for s in box.checkpoint().shed if s.stream == stream]
    records = {r.seq: r.line for r in held(box, stream)}
    lost = given_up(shed, stream)
    assert lost | set(records) == set(range(1, box.head(stream) + 1))
    assert not lost & set(records)
    assert sum(n for (s, _), n in box.shed_totals().items() if s == stream) == len(lost)
    assert len(records) == box.backlog()[stream].records
    for s in shed:
        after = records.get(s.last + 1)
        assert after is None or read_record(after).prev == s.last_hash
        assert s.first > 1 or s.prev_hash == genesis("edge1", box.chain, stream)
    for seq, line in records.items():
        if seq - 1 in records:
            assert read_record(line).prev == record_hash(records[seq - 1])
    return shed


def test_thinned_then_evicted_and_the_budget_holds(box: Outbox, tmp_path: Path) -> None:
    fill(box, tmp_path, "telemetry", 90)
    shed = check_statement(box, "telemetry")
    assert {s.policy for s in shed} == {"thin"}
    fill(box, tmp_path, "telemetry", 700)
    shed = check_statement(box, "telemetry")
    assert {s.policy for s in shed} == {"thin", "evict_oldest"}
    assert len(shed) <= 4  # ranges that follow each other are one
    newest = [r.seq for r in held(box, "telemetry")][-900:]
    assert newest == list(range(newest[0], newest[-1] + 1))


def test_the_order_of_giving_up_is_the_table(box: Outbox, tmp_path: Path) -> None:
    fill(box, tmp_path, "decision", 10)
    fill(box, tmp_path, "metric", 25)
    fill(box, tmp_path, "fault", 100)
    totals = box.shed_totals()
    assert totals.keys() >= {("metric", "thin"), ("metric", "evict_oldest"), ("decision", "evict_oldest")}
    assert len(held(box, "metric")) == 1  # the newest of a stream stays
    for stream in ("decision", "metric", "fault"):
        check_statement(box, stream)
    assert set(CLASSES) == set(STREAMS)
    assert [s for s in steps(Storage()) if s.stream == "alarm"] == []


def test_an_alarm_finds_room_where_nothing_else_does(box: Outbox, tmp_path: Path) -> None:
    refuse_all = replace(TIGHT, classes={stream: ClassPolicy("refuse") for stream in STREAMS})
    full = opened(tmp_path, FakeClock(), refuse_all)
    with pytest.raises(ResourceError, match=r"disk budget of \d+ bytes is used up") as caught:  # noqa: PT012
        while True:
            fill(full, tmp_path, "metric", 1)
    assert "storage.budget_bytes" in str(caught.value)
    stored = full.head("metric")
    fill(full, tmp_path, "alarm", 30, each=10)
    with pytest.raises(ResourceError):
        full.append("metric", "k", {"x": NOISE * 20})
    assert full.head("metric") == stored
    assert full.shed_totals() == {}
    assert len(held(full, "metric")) == stored


def test_a_range_confirmed_is_told_no_more_until_it_grows(box: Outbox, tmp_path: Path) -> None:
    fill(box, tmp_path, "telemetry", 90)
    told = box.checkpoint().shed
    box.confirm_shed(told[-1].id)
    assert box.checkpoint().shed == []
    fill(box, tmp_path, "telemetry", 60)
    before = next(s for s in told if s.policy == "thin")
    grown = next(s for s in box.checkpoint().shed if s.policy == "thin")
    assert grown.first == before.first
    assert grown.id > told[-1].id
    assert grown.last > before.last


def test_what_was_delivered_in_between_is_not_told_as_given_up(box: Outbox, tmp_path: Path) -> None:
    fill(box, tmp_path, "health", 100)
    first = {s.last for s in box.checkpoint().shed}
    assert box.ack({"health": max(first) + 500}) == 500
    fill(box, tmp_path, "health", 100)
    lost = given_up(list(box.checkpoint().shed), "health")
    assert not lost & set(range(max(first) + 1, max(first) + 501))
    assert max(lost) > max(first) + 500


def test_retention_by_running_time_and_not_by_the_wall_clock(tmp_path: Path, clock: FakeClock) -> None:
    ten_days = Storage(classes={"metric": ClassPolicy(retention_s=10 * DAY_S)})
    box = opened(tmp_path, clock, ten_days)
    box.append("metric", "old", {})
    clock.advance(9 * DAY_S)
    clock._wall_ns += 365 * DAY_S * 10**9  # a jump of the wall clock ages nothing
    box.append_many([("metric", "new", {}), ("alarm", "k", {})])
    box.maintain()
    assert len(held(box, "metric")) == 2
    box.close()
    clock._monotonic_ns = 5 * 10**9  # a new boot: the time switched off does not count
    again = Outbox(
        tmp_path / "outbox.db",
        "edge1",
        "boot2",
        clock,
        Storage(classes={"metric": ClassPolicy(retention_s=10 * DAY_S)}),
    )
    clock.advance(0.9 * DAY_S)
    again.maintain()
    assert len(held(again, "metric")) == 2
    clock.advance(0.2 * DAY_S)
    again.append("metric", "newest", {})
    assert [read_record(r.line).kind for r in held(again, "metric")] == ["new", "newest"]
    assert again.shed_totals() == {("metric", "retention"): 1}
    clock.advance(100 * 365 * DAY_S)
    again.maintain()
    assert [read_record(r.line).kind for r in held(again, "metric")] == ["newest"]
    assert len(held(again, "alarm")) == 1


@pytest.mark.parametrize("wall_s", [0, 1_700_000_000 - 366 * DAY_S, 1_700_000_000 + 366 * DAY_S])
def test_a_wrong_clock_changes_no_order_and_stops_nothing(tmp_path: Path, clock: FakeClock, wall_s: int) -> None:
    box = opened(tmp_path, clock)
    box.append("decision", "k", {"n": 1})
    clock._wall_ns = wall_s * 10**9
    box.append("decision", "k", {"n": 2})
    box.maintain()
    found = [read_record(r.line) for r in box.pending()]
    assert [e.body["n"] for e in found] == [1, 2]
    assert found[1].wall_ns == wall_s * 10**9
    assert found[0].mono_ns <= found[1].mono_ns


def test_the_file_shrinks_when_something_else_takes_the_room(box: Outbox, tmp_path: Path) -> None:
    fill(box, tmp_path, "health", 60)
    before = (tmp_path / "outbox.db").stat().st_size
    (tmp_path / "second").write_bytes(b"x" * 2 * MIB)
    box.maintain()
    assert (tmp_path / "outbox.db").stat().st_size < before
    assert du_bytes(tmp_path) <= TIGHT.budget_bytes
    check_statement(box, "health")


def test_a_large_payload_goes_in_pieces(tmp_path: Path, clock: FakeClock) -> None:
    import base64
    import hashlib
    import os

    box = opened(tmp_path, clock)
    data = os.urandom(200_000)
    events = box.append_blob("review", "frame", {"part_seq": 7}, data)
    assert [e.body["part"] for e in events] == list(range(5))
    bodies = [read_record(r.line).body for r in held(box, "review")]
    whole = b"".join(base64.b64decode(b["data"]) for b in bodies)
    assert whole == data
    assert {b["blob"] for b in bodies} == {hashlib.sha256(data).hexdigest()}
    assert bodies[0]["meta"] == {"part_seq": 7}
    assert box.backlog()["review"].size_bytes < sum(len(json.dumps(dict(b))) for b in bodies)  # base64 compresses


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"budget_bytes": MIB}, "expected 0"),
        ({"reserve_bytes": -1}, "budget_bytes"),
        ({"classes": {"x": ClassPolicy()}}, "no stream x"),
    ],
)
def test_a_wrong_setting_is_told(change: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        replace(Storage(), **change)  # type: ignore[arg-type]


def test_two_processes_share_the_room(box: Outbox, tmp_path: Path, clock: FakeClock) -> None:
    """What one found free it must not use when the other has taken it."""
    other = opened(tmp_path, clock)
    for _ in range(120):
        fill(box, tmp_path, "health", 1)
        fill(other, tmp_path, "link", 1, each=300)
    for stream in ("health", "link"):
        check_statement(box, stream)
    cap = box._bounds._cap()
    assert box._pages.used() <= cap.soft


def test_what_is_young_is_kept_without_taking_the_write_lock(tmp_path: Path, clock: FakeClock) -> None:
    box = opened(tmp_path, clock, Storage(classes={"metric": ClassPolicy(retention_s=DAY_S)}))
    box.append_many([("metric", "k", {})] * 600)
    clock.advance(DAY_S / 2)
    box.append_many([("metric", "k", {})] * 600)
    statements: list[str] = []
    box._db.db.set_trace_callback(statements.append)
    tick_s = box._tick_s()
    assert box._shedding.expire(tick_s) == 0
    assert "BEGIN IMMEDIATE" not in statements
    clock.advance(DAY_S * 0.6)
    assert box._shedding.expire(box._tick_s()) == 600
    assert held(box, "metric")[0].seq == 601
    check_statement(box, "metric")


def test_errors_beside_a_transaction_are_told_too(tmp_path: Path, clock: FakeClock) -> None:
    box = opened(tmp_path, clock)
    box.close()
    for call in (box._pages.used, box._pages.truncate_log, box._pages.keep_log, lambda: box._pages.limit(9)):
        with pytest.raises(ResourceError, match=r"outbox\.db"):
            call()


def test_what_was_found_free_counts_no_more_when_the_rest_has_grown(box: Outbox, tmp_path: Path) -> None:
    fill(box, tmp_path, "health", 5)
    assert box._bounds._free_pages > 0
    (tmp_path / "second").write_bytes(b"x" * MIB)
    box.measure()
    assert box._bounds._free_pages == 0
    fill(box, tmp_path, "health", 60)
