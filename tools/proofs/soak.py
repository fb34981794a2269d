"""`make soak`: months offline on simulated time, on a real disk, in minutes.

Ten telemetry records a second and one alarm a minute go into a real outbox whose state folder may take 200 MB. After every
commit the folder is measured as `du` does. At the end every sequence number must be held or lie in exactly one stated
range, every alarm must be there, and the chain must lead over every range.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from edge_runtime.clock import FakeClock
from edge_runtime.errors import exit_code
from edge_runtime.outbox.budget import du_bytes
from edge_runtime.outbox.policy import MIB, Storage
from edge_runtime.outbox.store import Outbox
from edge_runtime.wire.batch import Shed
from edge_runtime.wire.envelope import genesis, read_record, record_hash
from tools.arguments import check_bounds

BUDGET_BYTES = 200_000_000
PER_S = 10
COMMIT_S = 60  # simulated seconds in one commit
DAY_S = 86_400
PAGE = 20_000


@dataclass
class Held:
    """What is still in the outbox of one stream. `gaps`: first and last number of what is not."""

    count: int
    gaps: list[tuple[int, int]]
    broken: int


def read_held(outbox: Outbox, stream: str, ranges: list[Shed]) -> Held:
    """Page through the stream, check every link, over each gap by what was stated of it."""
    ends = {s.last: s.last_hash for s in ranges}
    held, after, before = Held(0, [], 0), 0, genesis("soak", outbox.chain, stream)
    while records := outbox.pending(PAGE, 1 << 40, after={stream: after}, streams=[stream]):
        for record in records:
            if record.seq != after + 1:
                held.gaps.append((after + 1, record.seq - 1))
                before = ends.get(record.seq - 1, "")
            if before and read_record(record.line).prev != before:
                held.broken += 1
            before, after = record_hash(record.line), record.seq
            held.count += 1
    return held


def unstated(gaps: list[tuple[int, int]], ranges: list[Shed]) -> int:
    """How many numbers are neither held nor stated as given up."""
    return sum(
        1 for first, last in gaps for n in range(first, last + 1)
        if not any(s.first <= n <= s.last and (not s.every or n % s.every) for s in ranges)
    )  # fmt: skip


def run(days: float, folder: Path, quiet: bool = False) -> dict[str, Any]:
    clock = FakeClock()
    storage = Storage(budget_bytes=BUDGET_BYTES, reserve_bytes=2 * MIB, staging_bytes=16 * MIB)
    outbox = Outbox(folder / "outbox.db", "soak", "boot", clock, storage)
    began, peak, records, alarms = time.monotonic(), 0, 0, 0
    commits = range(round(days * DAY_S / COMMIT_S))
    for n in track(commits, f"{days:g} days offline", disable=quiet):
        batch = [
            ("telemetry", "sample", {"t": n * COMMIT_S + i / PER_S, "v": (n * 37 + i) % 1000})
            for i in range(PER_S * COMMIT_S)
        ]
        outbox.append_many(batch)
        outbox.append("alarm", "limit", {"n": n})
        records, alarms = records + len(batch), alarms + 1
        peak = max(peak, du_bytes(folder))
        clock.advance(COMMIT_S)
        if n % 10 == 0:
            outbox.maintain()
    ranges = [s for s in outbox.checkpoint().shed if s.stream == "telemetry"]
    held, alarm = read_held(outbox, "telemetry", ranges), read_held(outbox, "alarm", [])
    shed = sum(count for (stream, _), count in outbox.shed_totals().items() if stream == "telemetry")
    outbox.close()
    return {
        "proof": "soak", "days": days, "records": records, "alarms": alarms, "alarms_held": alarm.count, "held": held.count,
        "shed": shed, "ranges": len(ranges), "unstated": unstated(held.gaps, ranges), "broken_links": held.broken + alarm.broken,
        "budget_bytes": BUDGET_BYTES, "peak_bytes": peak, "seconds": round(time.monotonic() - began, 1),
        "passed": peak <= BUDGET_BYTES and alarm.count == alarms and held.count + shed == records
        and not held.broken + alarm.broken and not unstated(held.gaps, ranges),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.proofs.soak", description=__doc__)
    parser.add_argument("--days", type=float, default=90.0)
    parser.add_argument("--folder", type=Path, help="on which disk (a temporary folder)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    check_bounds(args, {"days": (0.001, 36_500)})
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        found = run(args.days, Path(folder), quiet=args.json)
    print(json.dumps(found) if args.json else "\n".join(f"{name:>13}  {value}" for name, value in found.items()))
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(exit_code("soak", main))
