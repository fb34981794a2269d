"""`gudgeon bench outbox`: a durable append against its floor, one write and one fdatasync of the same bytes on the same disk,
taking turns; alone and in groups."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from edge_runtime.outbox.store import Outbox
from tools.bench.figures import row
from tools.bench.loop import WARM, timed

GROUPS = (1, 10, 100)
BODY = {
    "part_seq": 12345, "part_epoch": 1, "result": 1, "score": 0.0123, "label": "free", "reason": "defect 0.012 < 0.300",
    "bundle_digest": "0" * 64, "engine": "onnxruntime", "variant": "int8", "latency_us": 2345,
    "steps_us": {"frame": 100, "check": 200, "pre": 300, "infer": 1000}, "lot": 1, "serial": 12345, "recipe": 1,
}  # fmt: skip


def run(folder: Path | None, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        outbox = Outbox(Path(place) / "outbox.db", "bench", "bench")
        fd = os.open(Path(place) / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        data = json.dumps(BODY).encode()

        def floor_once() -> None:
            os.write(fd, data)
            os.fdatasync(fd)

        floor: list[int] = []
        times: dict[int, list[int]] = {size: [] for size in GROUPS}
        for i in range(WARM + count):
            taken = timed(floor_once)
            if i >= WARM:
                floor.append(taken)
            for size in GROUPS:
                items = [("decision", "decision", BODY)] * size
                taken = timed(outbox.append_many, items)
                if i >= WARM:
                    times[size].append(taken)
            outbox.ack({"decision": outbox.head("decision")})
        os.close(fd)
        outbox.close()
    rows = [row("write + fdatasync", floor, floor)]
    rows += [row(f"append, {size} in one commit, each", t, floor, per=size) for size, t in times.items()]
    return {"bench": "outbox", "count": count, "floor": "write + fdatasync", "rows": rows}
