"""The outbox: sequences without a gap, nothing half-written, nothing acknowledged that is lost."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge_runtime.clock import FakeClock
from edge_runtime.outbox import database, transaction, trouble
from edge_runtime.outbox.encoding import BODY_LIMIT_BYTES
from edge_runtime.outbox.pages import LINK_WAL_PAGES
from edge_runtime.outbox.policy import Storage
from edge_runtime.outbox.store import Outbox
from edge_runtime.wire.envelope import STREAMS, Event, Record, genesis, read_record, record_hash, record_line

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def opened(path: Path) -> Outbox:
    return Outbox(path, "edge1", "boot1", FakeClock(5, 7))


def seqs(events: list[Record], stream: str = "decision") -> list[int]:
    return [e.seq for e in events if e.stream == stream]


def test_an_event_is_stored_as_it_was_given(path: Path) -> None:
    box = opened(path)
    event = box.append("decision", "decision", {"score": 0.5, "lot": None, "ü": "☃"})
    assert event == Event(
        "edge1",
        box.chain,
        "decision",
        1,
        "boot1",
        "decision",
        5,
        7,
        None,
        genesis("edge1", box.chain, "decision"),
        {"score": 0.5, "lot": None, "ü": "☃"},
    )
    assert box.pending() == [Record("decision", 1, record_line(event))]
    assert box.last("decision") == event
    assert (box.depth(), box.head("decision"), box.head("alarm")) == (1, 1, 0)
    assert box.last("alarm") is None


def test_it_is_all_there_after_opening_again(path: Path) -> None:
    box = opened(path)
    for i in range(3):
        box.append("decision", "decision", {"i": i})
    box.ack({"decision": 2})
    box.close()
    again = opened(path)
    assert (seqs(again.pending()), again.depth(), again.head("decision")) == ([3], 1, 3)
    assert again.append("decision", "decision", {}).seq == 4
    again.ack({"decision": 4})
    assert again.depth() == 0
    last = again.last("decision")
    assert last is not None
    assert last.seq == 4
    again.close()
    assert opened(path).append("decision", "decision", {}).seq == 5


def test_many_in_one_commit_all_or_none(path: Path) -> None:
    box = opened(path)
    got = box.append_many([("decision", "d", {}), ("metric", "m", {}), ("decision", "d", {})])
    assert [(e.stream, e.seq) for e in got] == [("decision", 1), ("metric", 1), ("decision", 2)]
    with pytest.raises(ValueError, match="unknown stream 'rumour'"):
        box.append_many([("decision", "d", {}), ("rumour", "r", {})])
    assert (box.head("decision"), box.depth()) == (2, 3)


@pytest.mark.parametrize("body", [{"x": float("nan")}, {"x": "y" * BODY_LIMIT_BYTES}, {"x": {1, 2}}])
def test_a_body_that_cannot_be_sent_is_refused(path: Path, body: dict[str, object]) -> None:
    box = opened(path)
    with pytest.raises((ValueError, TypeError)):
        box.append("decision", "decision", body)
    assert box.append("decision", "decision", {}).seq == 1


def test_pending_the_most_urgent_first(path: Path) -> None:
    box = opened(path)
    for stream in ("metric", "health", "decision", "fault", "alarm", "decision"):
        box.append(stream, "k", {})
    got = [(e.stream, e.seq) for e in box.pending()]
    assert got == [("alarm", 1), ("fault", 1), ("decision", 1), ("decision", 2), ("health", 1), ("metric", 1)]
    assert [STREAMS[s][0] for s, _ in got] == sorted(STREAMS[s][0] for s, _ in got)


def test_pending_limits(path: Path) -> None:
    box = opened(path)
    for _ in range(6):
        box.append("decision", "k", {"x": "y" * 1000})
    box.append("metric", "k", {})
    assert seqs(box.pending(limit_events=4)) == [1, 2, 3, 4]
    assert len(box.pending(limit_bytes=3000)) == 2
    assert len(box.pending(limit_bytes=1)) == 1  # never stuck
    assert seqs(box.pending(after={"decision": 4})) == [5, 6]
    assert [e.stream for e in box.pending(after={"decision": 6})] == ["metric"]
    assert box.pending(after={"decision": 6, "metric": 1}) == []


def test_an_ack_is_cut_at_the_head(path: Path) -> None:
    box = opened(path)
    for _ in range(3):
        box.append("decision", "k", {})
    assert box.ack({"decision": 2}) == 2
    assert box.ack({"decision": 1, "alarm": 7, "rumour": 3}) == 0
    assert box.ack({"decision": 10**9}) == 1
    assert box.append("decision", "k", {}).seq == 4
    assert (box.depth(), seqs(box.pending())) == (1, [4])


class Model(RuleBasedStateMachine):
    """The outbox against plain lists."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(os.environ["OUTBOX_MODEL"]) / f"{uuid.uuid4()}.db"
        self.box = opened(self.path)
        self.head: dict[str, int] = {}
        self.acked: dict[str, int] = {}

    @rule(streams=st.lists(st.sampled_from(["decision", "metric", "alarm"]), min_size=1, max_size=4))
    def append(self, streams: list[str]) -> None:
        for event in self.box.append_many([(s, "k", {}) for s in streams]):
            self.head[event.stream] = self.head.get(event.stream, 0) + 1
            assert event.seq == self.head[event.stream]

    @rule(stream=st.sampled_from(["decision", "metric", "alarm"]), seq=st.integers(0, 12))
    def ack(self, stream: str, seq: int) -> None:
        before = self.acked.get(stream, 0)
        self.acked[stream] = max(before, min(seq, self.head.get(stream, 0)))
        assert self.box.ack({stream: seq}) == self.acked[stream] - before

    @rule()
    def reopen(self) -> None:
        self.box.close()
        self.box = opened(self.path)

    @invariant()
    def what_is_pending_is_what_was_not_acknowledged(self) -> None:
        left = {(s, i) for s, head in self.head.items() for i in range(self.acked.get(s, 0) + 1, head + 1)}
        pending = [(e.stream, e.seq) for e in self.box.pending()]
        assert set(pending) == left
        assert len(pending) == len(left) == self.box.depth()

    def teardown(self) -> None:
        self.box.close()


def test_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_MODEL", str(tmp_path))
    case = Model.TestCase
    case.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
    case().runTest()


def count_commits(box: Outbox) -> list[str]:
    statements: list[str] = []
    box._db.db.set_trace_callback(lambda sql: statements.append(sql) if sql == "COMMIT" else None)
    return statements


def test_threads_share_commits_and_leave_no_gap(path: Path) -> None:
    threads, each = 16, 25
    box = opened(path)
    commits = count_commits(box)
    got: list[list[int]] = [[] for _ in range(threads)]
    start = threading.Barrier(threads)

    def work(mine: list[int]) -> None:
        start.wait()
        for _ in range(each):
            mine.append(box.append("decision", "k", {}).seq)

    workers = [threading.Thread(target=work, args=(g,)) for g in got]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert sorted(s for g in got for s in g) == list(range(1, threads * each + 1))
    assert all(g == sorted(g) for g in got)
    assert seqs(box.pending(limit_events=10_000)) == list(range(1, threads * each + 1))
    assert len(commits) <= threads * each


def test_what_waits_during_a_commit_shares_the_next(path: Path) -> None:
    box = opened(path)
    commits = count_commits(box)
    with box._db.lock:  # one commit under way
        workers = [threading.Thread(target=box.append, args=("decision", "k", {})) for _ in range(10)]
        for w in workers:
            w.start()
        while len(box._group._waiting) < 9:
            time.sleep(0.001)
    for w in workers:
        w.join()
    assert (len(commits), box.head("decision")) == (2, 10)  # the first was under way


def test_two_connections_share_the_sequence(path: Path) -> None:
    control, link = opened(path), opened(path)
    got = [(control if i % 2 else link).append("fault", "k", {}).seq for i in range(10)]
    assert got == list(range(1, 11))
    assert link.ack({"fault": 10}) == 10
    assert control.depth() == 0


def test_decisions_are_on_the_disk_and_metrics_may_wait(path: Path) -> None:
    box = opened(path)
    for stream, level in (("decision", 2), ("metric", 1), ("alarm", 2)):
        box.append(stream, "k", {})
        assert box._db.db.execute("PRAGMA synchronous").fetchone()[0] == level
    box.append("decision", "k", {}, durable=False)
    assert box._db.db.execute("PRAGMA synchronous").fetchone()[0] == 1
    assert box._db.db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_the_floor_follows_the_acknowledgements(path: Path) -> None:
    box = opened(path)
    assert box.floor() == {}
    box.append_many([("decision", "k", {})] * 3)
    assert box.floor() == {"decision": 1}
    box.ack({"decision": 2})
    assert box.floor() == {"decision": 3}


WRITER = """
import sys
from pathlib import Path
from edge_runtime.outbox.store import Outbox
box = Outbox(Path(sys.argv[1]), "edge1", "boot1")
while True:
    events = box.append_many([("decision", "k", {}), ("alarm", "k", {})])
    sys.stdout.write(f"{events[0].seq}\\n")
    sys.stdout.flush()
"""


def test_kill_9_of_the_writer_loses_nothing_that_was_acknowledged(path: Path) -> None:
    rng = random.Random(5)
    told = 0
    for _ in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )  # fmt: skip
        assert writer.stdout is not None
        first = int(writer.stdout.readline())
        assert first > told
        time.sleep(rng.uniform(0.0, 0.05))
        writer.send_signal(signal.SIGKILL)
        lines = [line for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        writer.wait()
        told = int(lines[-1]) if lines else first
        box = opened(path)
        kept = box.pending(limit_events=10**6, limit_bytes=10**9)
        head = box.head("decision")
        assert head >= told
        assert seqs(kept) == seqs(kept, "alarm") == list(range(1, head + 1))
        box.close()


def traced(box: Outbox) -> list[str]:
    """The first word or two of each statement from now on."""
    found: list[str] = []
    box._db.db.set_trace_callback(lambda sql: found.append(" ".join(sql.split()[:2])))
    return found


def test_an_append_within_its_budget_asks_nothing(path: Path) -> None:
    """What makes a durable append cheap: four statements, whatever the budget and the classes are."""
    box = Outbox(path, "edge1", "boot1", FakeClock(5, 7), Storage())
    box.append_many([("decision", "k", {})] * 2)
    box.append("decision", "k", {})
    statements = traced(box)
    box.append("decision", "k", {})
    assert statements == ["BEGIN IMMEDIATE", "PRAGMA data_version", "INSERT INTO", "COMMIT"]
    statements.clear()
    box.append_many([("decision", "k", {})] * 100)
    assert statements.count("INSERT INTO") == 3  # 64 + 32 + 4 rows
    assert len(statements) == 6


def test_rows_of_several_statements_are_one_chain(path: Path) -> None:
    box = opened(path)
    rng = random.Random(3)
    streams = ["decision", "metric", "alarm"]
    for count in (1, 2, 3, 63, 64, 65, 127, 200):
        box.append_many([(rng.choice(streams), "k", {"n": n}) for n in range(count)])
        box.append_many([(streams[n // 70 % 3], "k", {"n": n}) for n in range(count)])
    for stream in streams:
        records = box.pending(10**6, 10**9, streams=[stream])
        assert [r.seq for r in records] == list(range(1, box.head(stream) + 1))
        hashes = [genesis("edge1", box.chain, stream), *(record_hash(r.line) for r in records)]
        assert [read_record(r.line).prev for r in records] == hashes[:-1]
        assert box.backlog()[stream].size_bytes == sum(len(r.line) for r in records)
    box.close()
    assert opened(path).append("alarm", "k", {}).prev == hashes[-1]


def test_an_acknowledgement_goes_in_short_transactions_and_lets_others_in_between(path: Path) -> None:
    class Between(FakeClock):
        """Another process appends whenever the acknowledging one pauses."""

        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            control.append("fault", "k", {})

    link, control = Outbox(path, "edge1", "boot1", Between(5, 7)), opened(path)
    control.append_many([("decision", "k", {})] * 1000)
    statements = traced(link)
    assert link.ack({"decision": 900}) == 900
    assert statements.count("BEGIN IMMEDIATE") == 4
    assert control.head("fault") == 3
    assert seqs(control.pending(1000)) == list(range(901, 1001))


def test_the_lock_is_looked_at_often(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = opened(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            other.execute("COMMIT")

    monkeypatch.setattr(transaction, "sleep", sleep)
    assert box.append("decision", "k", {}).seq == 1
    assert slept == [transaction.LOOK_EVERY_S] * 3


def test_link_copies_the_log_so_that_control_need_not(path: Path) -> None:
    control, link = opened(path), opened(path)
    control.append_many([("decision", "k", {"x": "y" * 900})] * 200)
    size = path.stat().st_size
    link.maintain()
    assert path.stat().st_size > size  # what was in the log alone is in the file
    assert link._db.db.execute("PRAGMA wal_autocheckpoint").fetchone()[0] == LINK_WAL_PAGES < database.WAL_PAGES


def test_an_acknowledgement_for_the_file_that_was_here_before_deletes_nothing(path: Path) -> None:
    link, before = opened(path), opened(path)
    before.append_many([("decision", "k", {})] * 5)
    with trouble.alone(path):
        trouble.set_aside(path, 1)
    control = opened(path)  # another process has set the file aside, and this one does not know yet
    control.append_many([("decision", "k", {})] * 3)
    assert link.chain == before.chain != control.chain
    assert link.ack({"decision": 5}) == 0
    before.confirm_shed(7)
    assert seqs(link.pending()) == [1, 2, 3]
    assert link.chain == before.chain == control.chain
    assert link.ack({"decision": 2}) == 2
