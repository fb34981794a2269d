"""The producer of a chaos run: a process of its own that appends to the device's outbox and keeps its own ledger.

Started as ``python -m tools.chaos.producer --config device.toml --ledger FILE``; ends on SIGTERM.

- The ledger is written and flushed to the disk *after* the outbox has returned, one JSON line for each append, so that what
  stands in it was acknowledged. A record that a kill cut off between the two may arrive without being listed.
- Each record carries a number `n` that never repeats in a run, also not after a kill: its upper part counts the starts.
- What the outbox refuses (a full disk) is a line, too, and is tried again as a new record.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from edge_runtime import config, log
from edge_runtime.child import end_with_parent, stop_event
from edge_runtime.datagrams import LINK_PATH, Sender
from edge_runtime.durable import replace_file
from edge_runtime.errors import GudgeonError
from edge_runtime.outbox.opening import open_outbox
from edge_runtime.outbox.store import Outbox

START_STEP = 1_000_000_000
BULK_STREAM = "metric"
ALARM_EVERY = 10
REFUSED_PAUSE_S = 0.2

Item = tuple[str, str, dict[str, Any]]


def body_hash(body: Mapping[str, Any]) -> str:
    """The same for the same content, whoever wrote the JSON."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Numbers:
    """The bodies of the records: the durable ones look like Decisions, so that the cloud's projection counts them."""

    def __init__(self, start: int, padding_bytes: int) -> None:
        self._start, self._pad, self._i = start, "x" * padding_bytes, 0

    def next(self) -> dict[str, Any]:
        self._i += 1
        part = {"part_epoch": self._start, "part_seq": self._i, "result": 1 + self._i % 2, "latency_us": 4000}
        return {"n": self._start * START_STEP + self._i, **part, "pad": self._pad}


def tick_items(numbers: Numbers, tick: int, bulk: int) -> tuple[Item, list[Item]]:
    """One durable record, and some bulk."""
    durable = ("alarm", "chaos") if tick % ALARM_EVERY == 0 else ("decision", "decision")
    return (*durable, numbers.next()), [(BULK_STREAM, "chaos", numbers.next()) for _ in range(bulk)]


class LedgerFile:
    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("ab")

    def taken(self, events: Sequence[Any], durable: bool) -> None:
        for e in events:
            self._line(
                device=e.device, stream=e.stream, chain=e.chain, seq=e.seq, n=e.body["n"], sha256=body_hash(e.body),
                durable=durable, wall_ns=e.wall_ns, mono_ns=e.mono_ns,
            )  # fmt: skip

    def refused(self, reason: str) -> None:
        self._line(refused=reason, mono_ns=time.monotonic_ns())

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def _line(self, **fields: Any) -> None:
        self._file.write(json.dumps(fields, separators=(",", ":")).encode() + b"\n")


def produce(outbox: Outbox, wake: Sender, ledger: LedgerFile, args: argparse.Namespace, start: int) -> None:
    stopping, numbers, tick = stop_event(), Numbers(start, args.padding_bytes), 0
    due_s = time.monotonic()
    while not stopping.is_set():
        durable, bulk = tick_items(numbers, tick, args.bulk)
        try:
            ledger.taken([outbox.append(*durable, durable=True)], True)
            if bulk:
                ledger.taken(outbox.append_many(bulk, durable=False), False)
            wake()
        except GudgeonError as error:
            ledger.refused(str(error))
            stopping.wait(REFUSED_PAUSE_S)
        ledger.sync()
        tick += 1
        due_s = max(due_s + 1 / args.per_s, time.monotonic() - 1.0)
        stopping.wait(max(0.0, due_s - time.monotonic()))


def next_start(counter: Path) -> int:
    """How often a producer of this run was started, this time included."""
    start = int(counter.read_text()) + 1 if counter.exists() else 1
    replace_file(counter, str(start).encode())  # whole, whenever a kill comes
    return start


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--per-s", type=float, default=20.0)
    parser.add_argument("--bulk", type=int, default=4)
    parser.add_argument("--padding-bytes", type=int, default=64)
    args = parser.parse_args(argv)
    end_with_parent()
    log.setup("producer")
    try:
        start = next_start(args.ledger.with_suffix(".starts"))
        device = config.load_device(args.config)
        outbox = open_outbox(device)
        wake = Sender(device.device.state_dir / LINK_PATH)
        log.say(logging.INFO, "producing", start=start)
        produce(outbox, wake, LedgerFile(args.ledger), args, start)
        outbox.close()
    except GudgeonError as error:
        print(f"producer: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
