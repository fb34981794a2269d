"""`gudgeon bench outbox`: a durable append against its floor, one write and one fdatasync of the same bytes on the same disk,
and against other durable queues, all taking turns; alone, a hundred at a time, and from 32 threads at once."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_runtime.outbox.store import Outbox
from tools.bench.figures import row
from tools.bench.loop import WARM, timed
from tools.bench.rivals import RIVALS, Put, bare_insert, rivals

GROUP = 100
PRODUCERS = 32
ROUNDS = 3
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
        bare = bare_insert(Path(place), data)
        fd = os.open(Path(place) / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def floor(lines: int) -> None:
            for _ in range(lines):
                os.write(fd, data)
            os.fdatasync(fd)

        single, hundred = "write + fdatasync", f"{GROUP} writes + fdatasync"
        refused: list[dict[str, str]] = []
        others = dict(rivals(Path(place), refused))
        work: dict[str, Callable[[], object]] = {
            single: lambda: floor(1),
            hundred: lambda: floor(GROUP),
            "bare sqlite3, INSERT + COMMIT": lambda: bare(1),
            f"bare sqlite3, {GROUP} rows in one commit": lambda: bare(GROUP),
            "append, durable": lambda: outbox.append("decision", "decision", BODY),
            f"append, {GROUP} in one commit": lambda: outbox.append_many([("decision", "decision", BODY)] * GROUP),
        }
        work |= {name: (lambda put=put: put(text)) for name, put in others.items()}  # type: ignore[misc]
        times: dict[str, list[int]] = {name: [] for name in work}
        for i in range(WARM + count):
            for name, once in work.items():
                taken = timed(once)
                if i >= WARM:
                    times[name].append(taken)
            outbox.ack({"decision": outbox.head("decision")})
        rates = _rates(outbox, others, count)
        os.close(fd)
        outbox.close()
    rows = [row(name, t, times[hundred if str(GROUP) in name else single]) for name, t in times.items()]
    return {
        "bench": "outbox", "count": count, "record_bytes": len(data), "refused": refused, "rows": rows, "producers": rates,
        "floor": f"write + fdatasync; for {GROUP}: {GROUP} writes + fdatasync",
    }  # fmt: skip


def _rates(outbox: Outbox, others: dict[str, Put], count: int) -> dict[str, Any]:
    """Durable records per second from `PRODUCERS` threads: the median of `ROUNDS`, taking turns."""
    persist = next(iter(RIVALS))
    each = max(5, count // 10)
    text = json.dumps(BODY)
    found: dict[str, list[float]] = {"outbox": [], persist: []}
    for _ in range(ROUNDS):
        found["outbox"].append(_rate(lambda: outbox.append("decision", "decision", BODY), each))
        outbox.ack({"decision": outbox.head("decision")})
        if persist in others:
            found[persist].append(_rate(lambda: others[persist](text), max(2, each // 10)))
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
