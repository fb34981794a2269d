"""`gudgeon bench outbox`: a durable append against its floor, one write and one fdatasync of the same bytes on the same disk,
and against other durable queues, all taking turns; alone, a hundred at a time, and from 32 threads at once."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_runtime.errors import GudgeonError
from edge_runtime.outbox.group import GroupCommit, Request
from edge_runtime.outbox.store import Outbox
from tools.bench import beside
from tools.bench.figures import row
from tools.bench.loop import WARM, timed
from tools.bench.rivals import RIVALS, Put, bare_insert, rivals
from tools.chaos.shim import Shim, compiler

GROUP = 100
PRODUCERS = 32
ROUNDS = 5
HAND_OVER = "group commit of write + fdatasync alone"
BODY = {
    "part_seq": 12345, "part_epoch": 1, "result": 1, "score": 0.0123, "label": "free", "reason": "defect 0.012 < 0.300",
    "bundle_digest": "0" * 64, "engine": "onnxruntime", "variant": "int8", "latency_us": 2345,
    "steps_us": {"frame": 100, "check": 200, "pre": 300, "infer": 1000}, "lot": 1, "serial": 12345, "recipe": 1,
}  # fmt: skip


def run(folder: Path | None, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        outbox = Outbox(Path(place) / "outbox.db", "bench", "bench")
        outbox.append("decision", "decision", BODY)
        data = outbox.pending(1)[0].line
        text = data.decode()
        floor = Floor(Path(place), data)
        bare = bare_insert(Path(place), data)
        single, hundred = "write + fdatasync", f"{GROUP} writes + fdatasync"
        refused: list[dict[str, str]] = []
        others = dict(rivals(Path(place), refused))
        work: dict[str, Callable[[], object]] = {
            single: lambda: floor.write(1),
            hundred: lambda: floor.write(GROUP),
            "bare sqlite3, INSERT + COMMIT": lambda: bare(1),
            f"bare sqlite3, {GROUP} rows in one commit": lambda: bare(GROUP),
            "append, durable": lambda: outbox.append("decision", "decision", BODY),
            f"append, {GROUP} in one commit": lambda: outbox.append_many([("decision", "decision", BODY)] * GROUP),
        }
        work |= {name: (lambda put=put: put(text)) for name, put in others.items()}  # type: ignore[misc]
        times = _take_turns(work, count, lambda: _deliver(outbox))
        rates = _rates(outbox, floor, others, count)
        floor.close()
        outbox.close()
        times |= beside.measure(Path(place), count, lambda control: control.append("decision", "decision", BODY), timed)
    rows = [row(name, t, times[hundred if str(GROUP) in name else single]) for name, t in times.items()]
    return {
        "bench": "outbox", "count": count, "record_bytes": len(data), "refused": refused, "rows": rows, "producers": rates,
        "floor": f"write + fdatasync; for {GROUP}: {GROUP} writes + fdatasync",
    }  # fmt: skip


def run_slower(folder: Path | None, count: int, flush_ms: float) -> dict[str, Any]:
    """The same in a process of its own, on a disk whose every flush takes `flush_ms` longer, for all alike."""
    if compiler() is None:
        raise GudgeonError(
            "bench outbox --flush-ms needs a C compiler; install one with: apt-get install gcc libc6-dev"
        )
    with tempfile.TemporaryDirectory() as place:
        shim = Shim(Path(place))
        shim.set_flush_delay_s(flush_ms / 1000)
        command = [sys.executable, "-m", "edge_runtime.cli", "bench", "outbox", "--json", "--count", str(count)]
        command += ["--folder", str(folder)] if folder else []
        done = subprocess.run(command, env=os.environ | shim.environment, stdout=subprocess.PIPE, check=False)
        slow_flushes = shim.slow_flushes
        shim.close()
    if done.returncode or not slow_flushes:
        raise GudgeonError(
            f"bench outbox with --flush-ms: exit code {done.returncode}, {slow_flushes} flushes were slower"
        )
    result: dict[str, Any] = json.loads(done.stdout)
    return result | {"flush_ms": flush_ms, "floor": f"{result['floor']}; each flush {flush_ms:g} ms slower"}


class Floor:
    """The record's bytes in a file that grows, and a flush: the least that a durable append can be."""

    def __init__(self, folder: Path, data: bytes) -> None:
        self._data = data
        self._fd = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, lines: int) -> None:
        for _ in range(lines):
            os.write(self._fd, self._data)
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def _take_turns(work: dict[str, Callable[[], object]], count: int, after: Callable[[], object]) -> dict[str, list[int]]:
    """name → times in ns. The order changes from turn to turn: what one leaves to the disk or in the caches must not fall
    to the same next one each time."""
    times: dict[str, list[int]] = {name: [] for name in work}
    order, rng = list(work), random.Random(1)
    for i in range(WARM + count):
        rng.shuffle(order)
        for name in order:
            taken = timed(work[name])
            if i >= WARM:
                times[name].append(taken)
        after()
    return times


def _deliver(outbox: Outbox) -> None:
    """As `link` does it, flushed, so that the next append does not pay for it."""
    outbox.ack({"decision": outbox.head("decision")})
    outbox.append("decision", "decision", BODY)


def _rates(outbox: Outbox, floor: Floor, others: dict[str, Put], count: int) -> dict[str, Any]:
    """Durable records per second from `PRODUCERS` threads: the median of `ROUNDS`, taking turns. The group commit over
    the floor shows what the threads alone cost: each has to be woken for each of its records."""
    persist = next(iter(RIVALS))
    each = max(5, count // 10)
    text = json.dumps(BODY)
    handed = GroupCommit[Request](lambda group: floor.write(len(group)), 2**30)
    found: dict[str, list[float]] = {"outbox": [], HAND_OVER: [], persist: []}
    for _ in range(ROUNDS):
        found["outbox"].append(_rate(lambda: outbox.append("decision", "decision", BODY), each))
        _deliver(outbox)
        found[HAND_OVER].append(_rate(lambda: handed.submit(Request(0)), each))
        if persist in others:
            found[persist].append(_rate(lambda: others[persist](text), max(2, each // 5)))
    medians = {name: round(sorted(rates)[ROUNDS // 2], 1) for name, rates in found.items() if rates}
    ratio = round(medians["outbox"] / medians[persist], 2) if persist in medians else None
    return {"threads": PRODUCERS, "per_s": medians, "ratio": ratio}


def _rate(put: Callable[[], object], each: int) -> float:
    start = threading.Barrier(PRODUCERS + 1)

    def produce() -> None:
        start.wait()
        for _ in range(each):
            put()

    threads = [threading.Thread(target=produce) for _ in range(PRODUCERS)]
    for thread in threads:
        thread.start()
    start.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    return PRODUCERS * each / (time.perf_counter() - begin)
