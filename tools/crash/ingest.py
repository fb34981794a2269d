"""The cloud's store on SQLite: batches committed, acknowledged, repeated; and what must be there after a crash.

`run` commits as an ingest worker does and tells each acknowledgement after the commit that it stands for, as the worker
publishes it. After the crash the devices send everything again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, event, text

from cloud.messages import Item, read_message
from cloud.store.opening import open_store
from cloud.store.writer import open_writer
from cloud.store.writing import Acks
from edge_runtime.identity import public_text
from edge_runtime.wire.batch import Checkpoint, Head, Shed, encode_batch
from edge_runtime.wire.envelope import Event, Record, genesis, record_hash, record_line
from edge_runtime.wire.topics import Place
from tools.crash.models import Model
from tools.crash.notes import Note, tell
from tools.crash.scenario import Scenario, State

FILE = "cloud.db"
LOG_PAGES = 40
DEVICES = ("crash-01", "crash-02")
RECORDS = 18  # of each stream
BATCH = 6
SHED = range(7, 13)  # of `telemetry` of the second device: given up
NOW_NS = 1_790_000_000_000_000_000


class Sent(NamedTuple):
    """Everything that a device has, and the batches of it."""

    lines: Mapping[tuple[str, int], bytes]
    items: Sequence[Item]


@cache
def device(name: str) -> Sent:
    chain, key = (
        hashlib.sha256(name.encode()).hexdigest()[:16],
        Ed25519PrivateKey.from_private_bytes(name.ljust(32).encode()),
    )
    records = [r for stream in ("decision", "telemetry") for r in _records(name, chain, stream)]
    lines = {(r.stream, r.seq): r.line for r in records}
    shed = _shed(lines) if name == DEVICES[1] else []
    kept = {k: line for k, line in lines.items() if not (shed and k[0] == "telemetry" and k[1] in SHED)}
    rows = sorted(kept, key=lambda k: (k[1], k[0]))
    parts = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    heads = {stream: Head(RECORDS, record_hash(lines[stream, RECORDS])) for stream in ("decision", "telemetry")}
    items = []
    for counter, part in enumerate(parts, start=1):
        checkpoint = Checkpoint(name, chain, "boot", counter, counter, NOW_NS, None, public_text(key), {}, heads, shed)
        payload = encode_batch(checkpoint, [lines[k] for k in part], key.sign)
        items.append(read_message(Place("acme", "site", "area", "line", "cell", name).topic("events"), payload))
    return Sent(kept, items)


def _records(name: str, chain: str, stream: str) -> Iterator[Record]:
    prev = genesis(name, chain, stream)
    for seq in range(1, RECORDS + 1):
        body = {"part_epoch": 1, "part_seq": seq, "result": 1, "latency_us": 4000, "pad": "x" * 200}
        line = record_line(Event(name, chain, stream, seq, "boot", stream, seq, NOW_NS + seq, None, prev, body))
        prev = record_hash(line)
        yield Record(stream, seq, line)


def _shed(lines: Mapping[tuple[str, int], bytes]) -> list[Shed]:
    before, first, last = (lines["telemetry", seq] for seq in (SHED[0] - 1, SHED[0], SHED[-1]))
    hashes = record_hash(before), record_hash(first), record_hash(last)
    return [Shed(1, "telemetry", SHED[0], SHED[-1], 0, len(SHED), "evict_oldest", *hashes, NOW_NS, NOW_NS)]


def _opened(folder: Path) -> Engine:
    engine = open_store(f"sqlite:///{folder / FILE}")
    event.listen(engine, "connect", lambda raw, _: raw.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}"))
    engine.dispose()  # the next connection is the first with the small log
    return engine


def make(folder: Path) -> None:
    """A store at the newest revision."""
    _opened(folder).dispose()


def run(folder: Path) -> None:
    """Batches of two devices, out of order, some twice, some together in one commit."""
    engine = _opened(folder)
    writer = open_writer(engine)
    first, second = (device(name).items for name in DEVICES)
    rounds = [[first[0]], [first[2], second[0]], [first[1]], [first[2], first[1]], list(second[1:]), list(first[3:])]
    for items in rounds:
        _told(writer.commit(items, NOW_NS))
    engine.dispose()


def _told(acks: Acks) -> None:
    for place, ack in acks:
        islands = {stream: [list(span) for span in spans] for stream, spans in ack.islands.items()}
        tell(device=place.device, committed=dict(ack.committed), islands=islands)


def run_make(folder: Path) -> None:
    make(folder)
    tell(made=True)


def recover(folder: Path) -> State:
    engine = _opened(folder)
    found = _found(engine)
    writer = open_writer(engine)
    for name in DEVICES:
        _told(writer.commit(device(name).items, NOW_NS))
    again = _found(engine)
    engine.dispose()
    return {"found": found, "again": again}


def _found(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:

        def rows(query: str) -> list[list[Any]]:
            return [list(row) for row in connection.execute(text(query))]

        events = [
            [name, stream, seq, record_hash(record.encode())]
            for name, stream, seq, record in rows("SELECT device, stream, seq, record FROM event ORDER BY id")
        ]
        counted = rows("SELECT device, value FROM tally WHERE name = 'kind:decision'")
        return {
            "events": events,
            "heads": rows("SELECT device, stream, head FROM stream_head"),
            "decisions": rows("SELECT device, count(*) FROM decision GROUP BY device"),
            "counted": counted,
            "findings": rows("SELECT device, kind, detail FROM finding"),
        }


def check(notes: Sequence[Note], state: State, model: Model) -> list[str]:
    """What was acknowledged is there; what came in one commit is there together; the second sending completes all."""
    if "error" in state:
        return [f"recovery failed: {state['error']}"]
    sent = {name: device(name).lines for name in DEVICES}
    wrong = []
    for note in notes:
        if "committed" in note:
            wrong += _acknowledged(note, sent[note["device"]], state["found"])
    whole = {(name, *key): record_hash(line) for name in DEVICES for key, line in sent[name].items()}
    for when in ("found", "again"):
        wrong += [f"{when}: {problem}" for problem in _consistent(state[when], whole)]
    there = {tuple(row[:3]) for row in state["again"]["events"]}
    wrong += [f"sent again and still missing: {key}" for key in whole if key not in there][:3]
    heads = [row for row in state["again"]["heads"] if row[2] != RECORDS]
    return wrong + [f"sent again, and the head is {row}" for row in heads]


def _acknowledged(note: Note, lines: Mapping[tuple[str, int], bytes], found: Mapping[str, Any]) -> list[str]:
    there = {(stream, seq) for name, stream, seq, _ in found["events"] if name == note["device"]}
    spans = [(stream, 1, upto) for stream, upto in note["committed"].items()]
    spans += [(stream, *span) for stream, found_spans in note["islands"].items() for span in found_spans]
    gone = [k for k in lines if any(k[0] == s and a <= k[1] <= b for s, a, b in spans) and k not in there]
    return [f"acknowledged and lost: {note['device']} {gone[:3]}"] if gone else []


def _consistent(found: Mapping[str, Any], whole: Mapping[tuple[str, str, int], str]) -> list[str]:
    rows = [((name, stream, seq), sha256) for name, stream, seq, sha256 in found["events"]]
    wrong = [f"{len(rows) - len({k for k, _ in rows})} records are there twice"] if len(rows) > len(dict(rows)) else []
    wrong += [f"{key} is not the record that was sent" for key, sha256 in rows if whole.get(key) != sha256]
    of_stream = {name: sum(k[0] == name and k[1] == "decision" for k, _ in rows) for name in DEVICES}
    for what in ("decisions", "counted"):
        counts = dict.fromkeys(DEVICES, 0) | dict(found[what])
        if counts != of_stream:
            wrong.append(f"{what} are {counts}, the records say {of_stream}")
    return wrong + [f"finding: {row}" for row in found["findings"]]


COMMIT = Scenario("cloud: batches committed, acknowledged, repeated (SQLite)", run, recover, check, make)
MAKE = Scenario("cloud: an empty store is brought to the newest revision", run_make, recover, check)
