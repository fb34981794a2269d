"""`gudgeon bench uplink`: from the durable outbox through Mosquitto to the acknowledgement, against a raw socket's QoS 1 rate.

- The floor sends the same record lines to the same kind of broker, one in each PUBLISH, with as many in flight as the uplink
  has (`WINDOW_RECORDS`), and counts PUBACKs. No one is subscribed: the broker works for it alone.
- The uplink is the production class over a real outbox. A record counts when the receiver's acknowledgement has deleted
  it. The receiver is once `gudgeon cloud` (signature, hash chain, SQLite commit), once one that only acknowledges
  (`receiver`), so that the two costs are seen apart.
- `cpu_us`: what each party has spent on a record, to show where the time goes.
- All take turns, `ROUNDS` times; a rate is records per second, whatever a message carries; the ratio is taken in each
  round and its median told.
- `latency`: single live records through the embedded broker, with TCP_NODELAY as the uplink sets it, and without.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.table import Table

from edge_runtime.errors import GudgeonError
from edge_runtime.link.lanes import LIVE_BATCHES, MOST_RECORDS
from edge_runtime.link.uplink import Uplink
from edge_runtime.outbox.store import Outbox
from edge_runtime.wire.topics import Place
from tools.bench import latency
from tools.bench.figures import row
from tools.bench.loop import timed
from tools.bench.outbox import BODY
from tools.bench.raw_mqtt import RawClient, publish_packet
from tools.bench.servers import Servers

ROUNDS = 5
RECORDS_PER_COUNT = 50
RECORDS_LIMIT = 20_000
FILL_RECORDS = 500
WINDOW_RECORDS = LIVE_BATCHES * MOST_RECORDS
DRAIN_S = 120.0
FLOOR = "raw socket, 1 record a PUBLISH"


class Device:
    """An outbox and its uplink to one broker. `parties`: name in a result → that of the process."""

    def __init__(self, folder: Path, name: str, port: int, parties: Mapping[str, str]) -> None:
        folder.mkdir()
        self.parties = parties
        self._parts = itertools.count()
        self.outbox = Outbox(folder / "outbox.db", name, "bench")
        place = Place("acme", "site1", "area1", "line1", "cell1", name)
        self.uplink = Uplink(place, "bench", "127.0.0.1", port, self.outbox, Ed25519PrivateKey.generate())

    def fill(self, records: int) -> None:
        """Durable, `FILL_RECORDS` in a commit; a part that never was before in each."""
        for first in range(0, records, FILL_RECORDS):
            parts = [next(self._parts) for _ in range(min(FILL_RECORDS, records - first))]
            self.outbox.append_many([("decision", "decision", decision(n)) for n in parts], durable=True)

    def drain(self) -> None:
        if not self.uplink.drain(DRAIN_S):
            raise GudgeonError(f"{self.outbox.depth()} records were not acknowledged within {DRAIN_S:.0f} s")

    def close(self) -> None:
        self.uplink.close()
        self.outbox.close()


def decision(n: int) -> dict[str, Any]:
    return {**BODY, "part_epoch": n // 65535, "part_seq": n % 65535 + 1, "score": n % 997 / 997}


def run(folder: Path | None, count: int) -> dict[str, Any]:
    records = min(RECORDS_LIMIT, max(1, RECORDS_PER_COUNT * count))
    with tempfile.TemporaryDirectory(dir=folder) as place, ExitStack() as stack:
        servers = stack.enter_context(Servers(Path(place)))
        times, more = _rates(servers, Path(place), records, stack)
        measured = latency.run(servers, Path(place) / "latency", count)
    floor_ns = [ns // records for ns in times[FLOOR]]
    rows = [row(name, t, floor_ns, records) for name, t in times.items()]
    return {
        "bench": "uplink", "floor": f"{FLOOR}, {WINDOW_RECORDS} in flight", "records": records, "rounds": ROUNDS,
        **more, "rows": rows, "rates": _ratios(times, records), "latency": measured,
    }  # fmt: skip


def _rates(
    servers: Servers, folder: Path, records: int, stack: ExitStack
) -> tuple[dict[str, list[int]], dict[str, Any]]:
    """Nanoseconds of each round by name; and what a message carries."""
    plain, cloud = servers.receiver(), servers.cloud()
    devices = {
        "uplink, receiver that only acknowledges": Device(
            folder / "plain", "bench-plain", plain, {"broker": "broker-receiver", "receiver": "receiver"}
        ),
        "uplink, gudgeon cloud on SQLite": Device(
            folder / "cloud", "bench-cloud", cloud, {"broker": "broker-cloud", "cloud": "cloud"}
        ),
    }
    raw = RawClient(plain)
    stack.callback(raw.close)
    for device in devices.values():
        stack.callback(device.close)
        device.fill(MOST_RECORDS)
        device.drain()  # connected, and everything warm
    lines = _lines(folder / "lines", records)
    single = [publish_packet("raw/bench", line, i + 1) for i, line in enumerate(lines)]
    groups = [b"\n".join(lines[i : i + MOST_RECORDS]) for i in range(0, records, MOST_RECORDS)]
    batches = [publish_packet("raw/bench", group, i + 1) for i, group in enumerate(groups)]
    work: dict[str, Callable[[], int]] = {
        FLOOR: lambda: raw.publish_ns(single, WINDOW_RECORDS),
        f"raw socket, {MOST_RECORDS} records a PUBLISH": lambda: raw.publish_ns(batches, LIVE_BATCHES),
    }
    cpu_us: dict[str, dict[str, float]] = {}
    for name, device in devices.items():
        cpu = cpu_us[name] = dict.fromkeys(("uplink", *device.parties), 0.0)
        work[name] = lambda device=device, cpu=cpu: _fill_and_drain(device, records, servers, cpu)  # type: ignore[misc]
    times: dict[str, list[int]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, once in work.items():
            times[name].append(once())
    size = round(sum(map(len, lines)) / records)
    per_record = {name: {k: round(v / ROUNDS, 1) for k, v in cpu.items()} for name, cpu in cpu_us.items()}
    carries = {"raw": 1, "uplink": MOST_RECORDS}
    return times, {"record_bytes": size, "records_a_message": carries, "cpu_us": per_record}


def _fill_and_drain(device: Device, records: int, servers: Servers, cpu_us: dict[str, float]) -> int:
    """Nanoseconds of the drain; what it cost is added to `cpu_us`, for each record."""
    device.fill(records)
    before = {name: servers.cpu_s(process) for name, process in device.parties.items()} | {"uplink": process_time()}
    took_ns = timed(device.drain)
    after = {name: servers.cpu_s(process) for name, process in device.parties.items()} | {"uplink": process_time()}
    for name in cpu_us:
        cpu_us[name] += (after[name] - before[name]) / records * 1e6
    return took_ns


def _lines(folder: Path, records: int) -> list[bytes]:
    """The record lines as an outbox makes them."""
    device = Device(folder, "bench-lines", 1, {})
    device.fill(records)
    lines: list[bytes] = []
    while len(lines) < records:
        lines += [r.line for r in device.outbox.pending(MOST_RECORDS, after={"decision": len(lines)})]
    device.close()
    return lines


def _ratios(times: dict[str, list[int]], records: int) -> list[dict[str, Any]]:
    """Records per second, and their share of the floor's rate in the same round: median, least and most."""
    found = []
    for name, taken in times.items():
        shares = [floor / ns for floor, ns in zip(times[FLOOR], taken, strict=True)]
        rates = [records / ns * 1e9 for ns in taken]
        spread = {"ratio_min": round(min(shares), 3), "ratio_max": round(max(shares), 3)}
        found.append({"name": name, "per_s": round(median(rates)), "ratio": round(median(shares), 3), **spread})
    return found


def tables(result: dict[str, Any]) -> list[Table]:
    return [_rate_table(result), _latency_table(result["latency"])]


def _rate_table(result: dict[str, Any]) -> Table:
    table = Table(title=f"records per second; {result['record_bytes']} bytes each, {result['rounds']} rounds in turn")
    for column in ("", "records/s", "÷ floor", "least", "most", "µs of CPU a record"):
        table.add_column(column, justify="left" if not column else "right")
    for r in result["rates"]:
        shares = (f"{r[share]:.3f}" for share in ("ratio", "ratio_min", "ratio_max"))
        spent = ", ".join(f"{party} {us}" for party, us in result["cpu_us"].get(r["name"], {}).items())
        table.add_row(r["name"], str(r["per_s"]), *shares, spent)
    return table


def _latency_table(latency: dict[str, Any]) -> Table:
    table = Table(title=f"one live record, append to acknowledgement; {latency['broker']}")
    for column in ("", "p50 ms", "p99 ms", "max ms", "in 35-55 ms", "ms: samples"):
        table.add_column(column, justify="left" if not column else "right")
    for r in latency["rows"]:
        times = (f"{r['us'][k] / 1000:.1f}" for k in ("p50", "p99", "max"))
        bins = "  ".join(f"{ms}+: {n}" for ms, n in r["histogram_ms"].items())
        table.add_row(r["name"], *times, f"{r['in_cluster']:.1%}", bins)
    return table
