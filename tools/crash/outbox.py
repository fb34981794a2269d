"""The outbox taken through its life: the programs that are crashed, and the restart after it.

`control` and `link` have a connection each, as on a device, here in one process. Steps
are small here (LOG_PAGES, EVICT_ROWS, THIN_ROWS), so that a short recording holds many of them.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from edge_runtime.clock import FakeClock
from edge_runtime.outbox import database, shedding
from edge_runtime.outbox.policy import MIB, ClassPolicy, Storage
from edge_runtime.outbox.store import Outbox
from edge_runtime.wire.envelope import STREAMS, Event, record_hash, record_line
from tools.crash import promises
from tools.crash.models import Model
from tools.crash.notes import Note, tell
from tools.crash.promises import DEVICE, NO_NUMBER
from tools.crash.scenario import Scenario, State

LOG_PAGES = 48
EVICT_ROWS = 16
THIN_ROWS = 40
FILE = "outbox.db"
ALL = 1_000_000
AFTER_CRASH = 1_000_000  # numbers of the records that a restart appends begin here
BUDGET = Storage(budget_bytes=33 * MIB, reserve_bytes=64 * 1024, staging_bytes=0)
KEPT_S = 3600
AGEING = Storage(budget_bytes=0, classes={"metric": ClassPolicy(retention_s=KEPT_S)})
ROOM_BYTES = 400_000  # for database pages, in the scenario that sheds
#: what the folder's other writers may come to hold: it leaves the outbox no more than ROOM_BYTES
FRAMES_BYTES = BUDGET.budget_bytes - 6 * MIB - 64 * 1024 - 256 * 1024 - ROOM_BYTES


def opened(folder: Path, boot: str, clock: FakeClock, storage: Storage | None = None) -> Outbox:
    database.WAL_PAGES, shedding.EVICT_ROWS, shedding.THIN_ROWS = LOG_PAGES, EVICT_ROWS, THIN_ROWS
    frames_bytes = FRAMES_BYTES if storage is BUDGET else 0
    return Outbox(folder / FILE, DEVICE, boot, clock, storage, frames_bytes)


class Producer:
    """Appends numbered records and tells what was taken."""

    def __init__(self, outbox: Outbox, first: int = 1) -> None:
        self._outbox, self._numbers = outbox, itertools.count(first)

    def append(self, *streams: str, durable: bool | None = None, padding: int = 20) -> None:
        """One record in each of `streams`, in one commit."""
        items = [(stream, "crash", {"n": next(self._numbers), "pad": "x" * padding}) for stream in streams]
        tell(**{"try": [body["n"] for _, _, body in items]})
        self.took(
            self._outbox.append_many(items, durable),
            any(STREAMS[s][1] for s in streams) if durable is None else durable,
        )

    def took(self, events: Sequence[Event], durable: bool) -> None:
        rows = [(e.chain, e.stream, e.seq, record_hash(record_line(e)), e.body.get("n", NO_NUMBER)) for e in events]
        tell(took=rows, durable=durable)


class Cloud:
    """What `link` does, with a cloud that is there in the same moment."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def send(self, limit: int = ALL) -> None:
        records = self._outbox.pending(limit, ALL)
        checkpoint = self._outbox.checkpoint()
        tell(sent=as_json(checkpoint), records=[(r.stream, r.seq, record_hash(r.line)) for r in records])
        self._upto = {r.stream: r.seq for r in records}
        self._shed = max((s.id for s in checkpoint.shed), default=0)

    def answer(self) -> None:
        tell(acked=self._upto)
        self._outbox.ack(self._upto)
        if self._shed:
            tell(confirmed=self._shed)
            self._outbox.confirm_shed(self._shed)


def as_json(checkpoint: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(checkpoint.to_json())
    return found


# ── the programs ────────────────────────────────────────────────────────────────────────────────────────────────────


def run_life(folder: Path) -> None:
    """Made, appended to in every way, sent, acknowledged, closed and opened again."""
    clock = FakeClock()
    control, link = opened(folder, "boot-1", clock), opened(folder, "boot-1", clock)
    producer, cloud = Producer(control), Cloud(link)
    for stream in ("decision", "alarm", "telemetry", "metric", "fault"):
        producer.append(stream)
    producer.append("telemetry", "decision", "metric", "decision")
    for _ in range(6):
        producer.append("telemetry", "metric", durable=False, padding=400)
    cloud.send(5)
    producer.append("telemetry", "health")
    cloud.answer()
    _together(producer)
    producer.took(control.append_blob("review", "frame", {"part": 1}, bytes(range(256)) * 400), durable=False)
    producer.append("decision")
    cloud.send()
    cloud.answer()
    producer.append("metric", "metric")
    cloud.send()
    control.close()
    control = opened(folder, "boot-1", clock)
    producer = Producer(control, first=500)
    producer.append("alarm", "telemetry")
    producer.append("telemetry")
    link.close()
    control.close()


def _together(producer: Producer) -> None:
    """Group commits: several producers at once."""

    def some(streams: Sequence[str]) -> None:
        for stream in streams:
            producer.append(stream, durable=True)

    threads = [threading.Thread(target=some, args=(("decision", "telemetry", "alarm"),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_shed(folder: Path) -> None:
    """A budget so small that bulk is thinned and evicted; what was given up is signed and confirmed."""
    clock = FakeClock()
    control, link = opened(folder, "boot-1", clock, BUDGET), opened(folder, "boot-1", clock, BUDGET)
    producer, cloud = Producer(control), Cloud(link)
    producer.append("alarm")
    for i in range(14):
        producer.append(*["telemetry"] * 8, durable=i % 5 == 0, padding=300)
    producer.append("decision", "telemetry")
    cloud.send(10)
    for _ in range(4):
        producer.append(*["review"] * 8, durable=False, padding=300)
    link.maintain()
    cloud.answer()
    cloud.send(10)
    producer.append(*["review"] * 8, durable=False, padding=300)
    producer.append("alarm")
    cloud.answer()
    cloud.send(10)
    control.close()
    link.close()


def run_age(folder: Path) -> None:
    """Records that grow too old are given up while nothing new comes; `link` tells the cloud so."""
    clock = FakeClock()
    control, link = opened(folder, "boot-1", clock, AGEING), opened(folder, "boot-1", clock, AGEING)
    producer, cloud = Producer(control), Cloud(link)
    for _ in range(4):
        producer.append("metric", "metric", "decision")
        clock.advance(KEPT_S / 4)
    cloud.send(2)
    clock.advance(KEPT_S / 2)
    link.maintain()
    cloud.send(2)  # nothing new since the last one but what was given up
    clock.advance(KEPT_S / 4)
    link.maintain()
    cloud.send(2)
    cloud.answer()
    clock.advance(2 * KEPT_S)
    producer.append("metric", "decision")
    cloud.send()
    cloud.answer()
    control.close()
    link.close()


OLD_SCHEMA = """
CREATE TABLE event (stream TEXT NOT NULL, seq INTEGER NOT NULL, priority INTEGER NOT NULL, data TEXT NOT NULL,
  PRIMARY KEY (stream, seq)) WITHOUT ROWID;
CREATE TABLE stream (name TEXT PRIMARY KEY, head INTEGER NOT NULL, last TEXT) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
OLD_EVENTS = 12
RUBBISH = b"\xa5" * 4096


def prepare_old(folder: Path) -> None:
    """A queue of schema 1 that still holds records."""
    with closing(sqlite3.connect(folder / FILE)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(OLD_SCHEMA)
        for n in range(1, OLD_EVENTS + 1):
            stream = "alarm" if n % 3 == 0 else "decision"
            data = json.dumps({"kind": "crash", "body": {"n": n}})
            db.execute("INSERT INTO event VALUES (?, ?, ?, ?)", (stream, n, STREAMS[stream][0], data))
        db.commit()


def run_short(folder: Path) -> None:
    """Opened, a record appended, sent: what is before it was there before the start."""
    clock = FakeClock()
    outbox = opened(folder, "boot-1", clock)
    producer, cloud = Producer(outbox, first=500), Cloud(outbox)
    producer.append("decision")
    cloud.send()
    producer.append("alarm", "telemetry")
    outbox.close()


def prepare_damaged(folder: Path) -> None:
    """A queue of which a page is rubbish."""
    outbox = opened(folder, "boot-0", FakeClock())
    for n in range(40):
        outbox.append("decision", "crash", {"n": 10_000 + n, "pad": "x" * 300})
    outbox.close()
    with (folder / FILE).open("r+b") as file:
        file.seek(-8192, 2)
        file.write(RUBBISH)


# ── the restart ─────────────────────────────────────────────────────────────────────────────────────────────────────


def recover_with(storage: Storage | None) -> Any:
    def recover(folder: Path) -> State:
        return restart(folder, storage)

    return recover


def restart(folder: Path, storage: Storage | None = None) -> State:
    """What the next boot finds; then it appends, sends, closes."""
    clock = FakeClock(monotonic_ns=5_000_000_000)
    outbox = opened(folder, "boot-2", clock, storage)
    streams: dict[str, dict[str, Any]] = {s: {"head": outbox.head(s), "records": []} for s in STREAMS}
    told_damage = False
    for record in outbox.pending(ALL, 1 << 40):
        event = json.loads(record.line)
        told_damage |= event["kind"] == "outbox_damaged"
        row = (record.seq, record_hash(record.line), event["prev"], event["body"].get("n", NO_NUMBER))
        streams[record.stream]["records"].append(row)
    aside = sorted(p for p in folder.glob(f"{FILE}.damaged-*") if not p.name.endswith(("-wal", "-shm")))
    state = {
        "chain": outbox.chain,
        "streams": streams,
        "checkpoint": as_json(outbox.checkpoint()),
        "damaged": [p.name for p in aside],
        "evidence": any(RUBBISH in p.read_bytes() for p in aside),
        "told_damage": told_damage,
    }
    _go_on(outbox, streams)
    return state


def _go_on(outbox: Outbox, streams: Mapping[str, Mapping[str, Any]]) -> None:
    """The next record takes the next number, and names the one before it."""
    producer, cloud = Producer(outbox, first=AFTER_CRASH + 10 * streams["alarm"]["head"]), Cloud(outbox)
    producer.append("alarm", "telemetry")
    cloud.send()
    newest = {r.stream: json.loads(r.line) for r in outbox.pending(ALL, 1 << 40)}
    for stream in ("alarm", "telemetry"):
        found, before = newest[stream], streams[stream]
        if found["seq"] != before["head"] + 1:
            raise ValueError(f"{stream}: after {before['head']} came number {found['seq']}")
        if before["records"] and found["prev"] != before["records"][-1][1]:
            raise ValueError(f"{stream} {found['seq']}: does not name the record before it")
    outbox.close()


def check_old(notes: Sequence[Note], state: State, model: Model) -> list[str]:
    """Besides all else: what waited in the old queue is in the new one, each record once."""
    numbers = {"try": list(range(1, OLD_EVENTS + 1))}
    problems = promises.check([numbers, *notes], state, model)
    if "error" in state:
        return problems
    there = {row[3] for found in state["streams"].values() for row in found["records"]}
    return problems + [f"lost: number {n} of the old queue" for n in numbers["try"] if n not in there]


def check_damaged(notes: Sequence[Note], state: State, model: Model) -> list[str]:
    return promises.check(notes, state, model, damage=True)


LIFE = Scenario(
    "made; durable, bulk, shared and large appends; sent, acknowledged, closed, opened again",
    run_life, recover_with(None), promises.check,
)  # fmt: skip
SHED = Scenario(
    "a budget that is used up: thinned, evicted, signed, confirmed", run_shed, recover_with(BUDGET), promises.check
)
AGE = Scenario(
    "records past their retention are given up while nothing new comes", run_age, recover_with(AGEING), promises.check
)
ADOPT = Scenario("a queue of schema 1 is taken over", run_short, recover_with(None), check_old, prepare_old)
DAMAGED = Scenario(
    "a damaged file is set aside, a new one takes its place",
    run_short,
    recover_with(None),
    check_damaged,
    prepare_damaged,
)
