"""What `control` feels of `link`: a durable append every few milliseconds, alone, and while another process hands a backlog of
the same outbox over, as `link` does it, at `DRAIN_PER_S`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from edge_runtime.link.process import NICE
from edge_runtime.outbox.policy import Storage
from edge_runtime.outbox.store import Outbox
from edge_runtime.wire.envelope import STREAMS

DRAIN_PER_S = 10_000
BATCH = 500
PAUSE_S = 0.005
MAINTAIN_S = 1.0
BACKLOG_BODY = {"name": "line_speed", "value": 0.25, "unit": "m/s", "note": "x" * 100}


def opened(path: Path) -> Outbox:
    return Outbox(path, "bench", "bench", storage=Storage())


def measure(
    folder: Path, count: int, append: Callable[[Outbox], object], timed: Callable[..., int]
) -> dict[str, list[int]]:
    """name → times in ns."""
    path = folder / "beside.db"
    control = opened(path)
    backlog = int(count * PAUSE_S * DRAIN_PER_S * 2)
    for _ in range(-(-backlog // BATCH)):
        control.append_many([("metric", "value", BACKLOG_BODY)] * BATCH, durable=False)
    found = {"append every 5 ms": _paced(control, count, append, timed)}
    link = subprocess.Popen([sys.executable, "-m", "tools.bench.beside", str(path)], stdout=subprocess.PIPE)
    try:
        assert link.stdout is not None
        link.stdout.readline()  # it has begun
        found["append every 5 ms while link drains"] = _paced(control, count, append, timed)
    finally:
        link.kill()
        link.wait()
        control.close()
    return found


def _paced(control: Outbox, count: int, append: Callable[[Outbox], object], timed: Callable[..., int]) -> list[int]:
    times = []
    for _ in range(count):
        time.sleep(PAUSE_S)
        times.append(timed(lambda: append(control)))
    return times


def drain(outbox: Outbox) -> None:
    """Until nothing of the backlog is left; then it waits to be ended."""
    begin, handed_over, due_s = time.monotonic(), 0, 0.0
    while True:
        records = outbox.pending(BATCH)
        outbox.checkpoint()
        outbox.ack(
            {stream: max(seqs) for stream in STREAMS if (seqs := [r.seq for r in records if r.stream == stream])}
        )
        handed_over += len(records)
        if time.monotonic() >= due_s:
            outbox.maintain()
            due_s = time.monotonic() + MAINTAIN_S
        time.sleep(max(PAUSE_S, begin + handed_over / DRAIN_PER_S - time.monotonic()))


if __name__ == "__main__":
    os.nice(NICE)
    link = opened(Path(sys.argv[1]))
    print("draining", flush=True)
    drain(link)
