"""`make drain`: a million records queued offline, then the connection comes back.

Real `link`, real cloud, Mosquitto between them where it is installed, else the embedded broker. A live durable record is
appended every 50 ms: first with nothing queued, then while the backlog drains. All must arrive, each stream's backlog in
order, the live records must hardly feel it, and `link` must stay small.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from edge_runtime.datagrams import LINK_PATH, Sender
from edge_runtime.errors import exit_code
from edge_runtime.outbox.store import Outbox
from edge_runtime.tasks import ENVIRONMENT
from tools.arguments import MANY, check_bounds
from tools.chaos.pair import free_port, mosquitto

LIVE_EVERY_S = 0.05
QUIET_S = 15.0
GROUP = 500
RSS_LIMIT_BYTES = 60 * 2**20
TEXT = "x" * 150  # the record line is then a bit longer than 200 bytes of payload with its envelope


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={"PATH": "/usr/sbin:/usr/bin:/bin", **ENVIRONMENT}
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def configure(folder: Path, port: int, own_broker: bool) -> None:
    (folder / "device.toml").write_text(
        f'[device]\nid = "drain-01"\nstate_dir = "state"\n[broker]\nport = {port}\n[storage]\nbudget_bytes = 0\n'
    )
    embedded = "false" if own_broker else "true"
    (folder / "cloud.toml").write_text(
        f'[http]\nport = 0\n[broker]\nembedded = {embedded}\nport = {port}\n[store]\nurl = "sqlite:///cloud.db"\n'
    )
    (folder / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")


def peak_rss_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024


def live(outbox: Outbox, poke: Sender, until: Any) -> int:
    """One durable record every 50 ms as long as `until` does not say to stop; how many."""
    count = 0
    while not until():
        outbox.append("decision", "live", {"n": count})
        poke()
        count += 1
        time.sleep(LIVE_EVERY_S)
    return count


def _until_empty(outbox: Outbox) -> None:
    while outbox.depth():
        time.sleep(0.05)


def _until_draining(outbox: Outbox, records: int) -> None:
    while (waits := outbox.backlog().get("telemetry")) and waits.records >= records:
        time.sleep(0.005)


def latencies_ms(cloud: sqlite3.Connection, after: int, upto: int) -> list[float]:
    """Append to ingest, by the two wall times, which are of one clock here."""
    rows = cloud.execute(
        "SELECT received_ns - wall_ns FROM event WHERE stream = 'decision' AND seq > ? AND seq <= ?", (after, upto)
    )
    return [ns / 1e6 for (ns,) in rows]


def run(records: int, folder: Path, quiet: bool = False) -> dict[str, Any]:
    program = mosquitto()
    port, python = free_port(), sys.executable
    configure(folder, port, program is not None)
    (folder / "state" / "run").mkdir(parents=True)
    outbox = Outbox(folder / "state" / "outbox.db", "drain-01", "drain")
    poke = Sender(folder / "state" / LINK_PATH)
    broker = [program, "-c", str(folder / "mosquitto.conf")] if program else ["sleep", "86400"]
    cloud_command = [python, "-m", "edge_runtime.cli", "cloud", "--config", str(folder / "cloud.toml")]
    link_command = [python, "-m", "edge_runtime.link.process", "--config", str(folder / "device.toml")]
    with running(broker, folder / "broker.log"), running(cloud_command, folder / "cloud.log"):
        with running(link_command, folder / "link.log"):
            outbox.append("decision", "first", {})
            _until_empty(outbox)  # everything is up
            end_s = time.monotonic() + QUIET_S
            before = live(outbox, poke, lambda: time.monotonic() > end_s)
            _until_empty(outbox)
        for _ in range(records // GROUP):
            outbox.append_many([("telemetry", "bulk", {"x": TEXT})] * GROUP)
        with running(link_command, folder / "link.log") as link, Progress(disable=quiet) as progress:
            task, begin_s = progress.add_task("draining", total=records), time.monotonic()

            def drained() -> bool:
                waits = outbox.backlog().get("telemetry")
                progress.update(task, completed=records - (waits.records if waits else 0))
                return waits is None

            _until_draining(outbox, records)  # link starts, and dials: what is appended meanwhile is no live record
            during = live(outbox, poke, drained)
            took_s = time.monotonic() - begin_s
            _until_empty(outbox)
            rss = peak_rss_bytes(link.pid)
    outbox.close()
    return _result(folder / "cloud.db", records, before, during, took_s, rss, "Mosquitto" if program else "embedded")


def _result(
    store: Path, records: int, before: int, during: int, took_s: float, rss: int, broker: str
) -> dict[str, Any]:
    cloud = sqlite3.connect(store)
    count, least, most = cloud.execute(
        "SELECT count(*), min(seq), max(seq) FROM event WHERE stream = 'telemetry'"
    ).fetchone()
    order = [seq for (seq,) in cloud.execute("SELECT seq FROM event WHERE stream = 'telemetry' ORDER BY id")]
    findings = cloud.execute("SELECT count(*) FROM finding").fetchone()[0]
    quiet, busy = latencies_ms(cloud, 1, 1 + before), latencies_ms(cloud, 1 + before, 1 + before + during)
    cloud.close()
    p99 = [float(np.percentile(times, 99)) for times in (quiet, busy)]
    allowed = max(0.2 * p99[0], 20.0)
    return {
        "proof": "drain", "broker": broker, "records": records, "delivered": count, "in_order": order == sorted(order),
        "findings": findings, "live_before": len(quiet), "live_during": len(busy), "records_per_s": round(records / took_s),
        "live_p99_before_ms": round(p99[0], 1), "live_p99_during_ms": round(p99[1], 1), "link_peak_rss_bytes": rss,
        "complete": (count, least, most) == (records, 1, records) and len(busy) == during and not findings,
        "live_ok": p99[1] - p99[0] < allowed, "rss_ok": rss < RSS_LIMIT_BYTES,
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.proofs.drain", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="on which disk (a temporary folder)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    check_bounds(args, {"records": (1, MANY)})
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        found = run(args.records, Path(folder), quiet=args.json)
    print(json.dumps(found) if args.json else "\n".join(f"{name:>20}  {value}" for name, value in found.items()))
    return 0 if found["complete"] and found["in_order"] and found["live_ok"] and found["rss_ok"] else 1


if __name__ == "__main__":
    sys.exit(exit_code("drain", main))
