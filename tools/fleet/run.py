"""A fleet through the restart of its broker: everybody comes, the broker dies, everybody comes back, everything is counted.

1. Broker, cloud and workers start; each device dials at its place in the window and sends a record every `every_s`.
2. When all are connected, the broker is killed (`kill -9`) and stays away for `down_s`.
3. From its return on, connections are counted; `back_s` is how long it takes until all are there.
4. When every record is produced and acknowledged, the devices' ledgers are compared with the cloud's database.

`limit`: devices ÷ `spread_s` connections in any second, before and after the restart.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from edge_runtime.errors import GudgeonError
from edge_runtime.link.spread import MARGIN
from tools.chaos import cloud_rows, ledger
from tools.chaos.pair import free_port, mosquitto
from tools.chaos.processes import Keeper
from tools.fleet import worker
from tools.fleet.brokers import Mosquitto, clients, connections_ns, mosquitto_conf
from tools.fleet.device import device_id
from tools.fleet.rate import peak_per_s

CHECK_S = 0.2
OPEN_S = 300.0
SLACK_S = 60.0
SETTLE_S = 180.0
MEMORY = Path("/dev/shm")  # noqa: S108 - folders with random names are made in it
DEVICE_BYTES = 3 * 2**20
PREFIX = "gudgeon-fleet-"
KEPT = ("cloud.db*", "log/*", "worker-*/*.jsonl")
FIRST_NS = 1_000_000_000  # workers get this long to hear when to begin

Told = Callable[[str, float], None]


@dataclass(frozen=True)
class Wanted:
    """What was asked for on the command line. `steady_s`: how long all are connected before the broker dies."""

    devices: int
    records: int
    spread_s: float
    down_s: float
    steady_s: float
    workers: int
    embedded: bool

    @property
    def window_s(self) -> float:
        return MARGIN * self.spread_s

    @property
    def every_s(self) -> float:
        """Records come all along: before, while and after the broker is away."""
        return (2 * self.window_s + self.steady_s + self.down_s) / self.records

    @property
    def limit(self) -> float:
        return self.devices / self.spread_s


class Fleet:
    """`with Fleet(…) as fleet:` starts broker, cloud and workers; leaving ends them."""

    def __init__(self, folder: Path, devices: Path, wanted: Wanted, told: Told) -> None:
        self.folder, self._devices, self.wanted, self._told = folder, devices, wanted, told
        self.database = folder / "cloud.db"
        self.keeper = Keeper(folder / "log")
        self._port = free_port()
        self._stack = ExitStack()
        program = None if wanted.embedded else mosquitto()
        config = folder / "mosquitto.conf"
        self.mosquitto = Mosquitto(program, config, folder / "log" / "broker.log") if program else None
        config.write_text("\n".join(mosquitto_conf(self._port)) + "\n")
        self._folders: list[Path] = []

    def __enter__(self) -> Fleet:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        self._stack.callback(self.keeper.stop)
        if self.mosquitto:
            self._stack.callback(self.mosquitto.stop)
            self.mosquitto.start()
        self._add_cloud()
        self.start_cloud()
        share, more = divmod(self.wanted.devices, self.wanted.workers)
        first = 1
        for i in range(self.wanted.workers):
            count = share + (i < more)
            self._add_worker(i, first, count)
            first += count

    def _add_cloud(self) -> None:
        embedded, ready = str(self.mosquitto is None).lower(), self.folder / "cloud.ready"
        config = self.folder / "cloud.toml"
        config.write_text(
            f"[http]\nport = 0\n[broker]\nembedded = {embedded}\nport = {self._port}\n"
            f'[store]\nurl = "sqlite:///{self.database.name}"\n'
        )
        command = ("-m", "edge_runtime.cli", "cloud", "--config", str(config), "--ready-file", str(ready))
        self.keeper.add("cloud", [sys.executable, *command])

    def start_cloud(self) -> None:
        ready = self.folder / "cloud.ready"
        ready.unlink(missing_ok=True)
        self.keeper["cloud"].start()
        self.wait("the cloud", ready.exists, OPEN_S)

    def _add_worker(self, index: int, first: int, count: int) -> None:
        w, folder = self.wanted, self._devices / f"worker-{index}"
        options = {
            "folder": folder, "port": self._port, "first": first, "count": count, "spread-s": w.spread_s,
            "records": w.records, "every-s": w.every_s,
        }  # fmt: skip
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self.keeper.add(folder.name, [sys.executable, "-m", "tools.fleet.worker", *arguments]).start()
        self._folders.append(folder)

    # ── letting time pass ───────────────────────────────────────────────────────────────────────────────────────────

    def wait(self, what: str, done: Callable[[], bool], timeout_s: float, share: Callable[[], float] = float) -> None:
        """GudgeonError where it does not come to pass, or a process has ended."""
        deadline_s = time.monotonic() + timeout_s
        while not done():
            self._told(what, share())
            dead = [name for name in self.names if not self.keeper[name].alive]
            if dead or time.monotonic() > deadline_s:
                why = (
                    f"{dead[0]} ended: {self.keeper[dead[0]].last_line()[:300]}"
                    if dead
                    else f"not in {timeout_s:.0f} s"
                )
                raise GudgeonError(f"{what}: {why}")
            time.sleep(CHECK_S)

    @property
    def names(self) -> list[str]:
        return ["cloud", *(folder.name for folder in self._folders)]

    def state(self, name: str, of_all: Callable[[list[int]], int] = sum) -> int:
        """A count over all workers."""
        files = [folder / worker.STATE for folder in self._folders]
        return of_all([json.loads(path.read_text())[name] if path.exists() else 0 for path in files])

    def open(self) -> None:
        """All devices are there."""
        self.wait("opening outboxes", lambda: all((f / worker.READY).exists() for f in self._folders), OPEN_S)

    def begin(self) -> int:
        at_ns = time.monotonic_ns() + FIRST_NS
        for folder in self._folders:
            new = folder / f"{worker.BEGIN}.new"
            new.write_text(str(at_ns))
            new.rename(folder / worker.BEGIN)
        return at_ns

    def wait_connected(self, what: str, timeout_s: float) -> None:
        n = self.wanted.devices
        self.wait(what, lambda: self.state("connected") == n, timeout_s, lambda: self.state("connected") / n)

    def stop_workers(self) -> None:
        """All at once; then each is waited for."""
        for folder in self._folders:
            self.keeper[folder.name].send(signal.SIGTERM)
        for folder in self._folders:
            self.keeper[folder.name].stop()

    # ── the broker ──────────────────────────────────────────────────────────────────────────────────────────────────

    def kill_broker(self) -> None:
        if self.mosquitto:
            self.mosquitto.kill()
        else:
            self.keeper["cloud"].kill()

    def return_broker(self) -> int:
        """From when on a connection may count as one after the return, by the monotonic clock."""
        if not self.mosquitto:
            before_ns = time.monotonic_ns()
            self.start_cloud()
            return before_ns
        self.mosquitto.start()
        return self.mosquitto.started_ns

    def connections_ns(self, since_ns: int, until_ns: int = 2**63) -> list[int]:
        if self.mosquitto:
            found = connections_ns(list(self.mosquitto.lines), since_ns)
        else:
            found = sorted(at_ns for _, at_ns in self.ups(since_ns))
        return [t for t in found if t < until_ns]

    def first_back_ns(self, since_ns: int) -> dict[str, int]:
        """Device → when it was first connected after this time; the broker's word where it keeps a log."""
        if self.mosquitto:
            return clients(list(self.mosquitto.lines), since_ns)
        first: dict[str, int] = {}
        for name, at_ns in self.ups(since_ns):
            first.setdefault(name, at_ns)
        return first

    def ups(self, since_ns: int) -> Iterator[tuple[str, int]]:
        for folder in self._folders:
            for line in (folder / worker.CONNECTIONS).read_text().splitlines():
                note = json.loads(line)
                if note["up"] and note["mono_ns"] >= since_ns:
                    yield note["device"], note["mono_ns"]

    # ── what is known ───────────────────────────────────────────────────────────────────────────────────────────────

    def produced(self) -> dict[str, list[str]]:
        """Device → the lines of its ledger."""
        lines = defaultdict(list)
        for folder in self._folders:
            for line in (folder / worker.LEDGER).read_text().splitlines():
                lines[json.loads(line)["device"]].append(line)
        return lines

    def memory(self) -> dict[str, int]:
        """Peak resident bytes of each process until now."""
        pids = {name: self.keeper[name].pid for name in self.names}
        if self.mosquitto:
            pids["mosquitto"] = self.mosquitto.pid
        return {name: peak_rss_bytes(pid) for name, pid in pids.items()}

    def cloud_cpu_s(self) -> float:
        times = psutil.Process(self.keeper["cloud"].pid).cpu_times()
        return float(times.user + times.system)


def peak_rss_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024


def run(wanted: Wanted, folder: Path | None, keep: Path | None, told: Told) -> dict[str, Any]:
    """`folder`: where the outboxes lie. In life each device has a disk of its own; so here it is memory where there is room,
    else the one disk that they all share with the cloud."""
    where = folder or in_memory(wanted.devices)
    with ExitStack() as stack:
        names = [stack.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX, dir=d)) for d in (None, where)]
        cloud, devices = map(Path, names)
        fleet = stack.enter_context(Fleet(cloud, devices, wanted, told))
        try:
            return _phases(fleet, wanted, told) | {"outboxes_in": str(where or tempfile.gettempdir())}
        finally:
            if keep:
                _keep([cloud, devices], keep)


def in_memory(devices: int) -> Path | None:
    """The file system in memory, where it has room for so many outboxes."""
    try:
        found = os.statvfs(MEMORY)
    except OSError:
        return None
    room = found.f_bavail * found.f_frsize > devices * DEVICE_BYTES and os.access(MEMORY, os.W_OK)
    return MEMORY if room else None


def _phases(fleet: Fleet, wanted: Wanted, told: Told) -> dict[str, Any]:
    fleet.open()
    begin_ns, begin_s = fleet.begin(), time.monotonic()
    fleet.wait_connected("everybody connects", wanted.window_s + SLACK_S)
    _pause("all connected", wanted.steady_s, told)
    fleet.kill_broker()
    killed_ns = time.monotonic_ns()
    _pause("the broker is away", wanted.down_s, told)
    connected_ns = fleet.return_broker()
    n = wanted.devices
    fleet.wait(
        "everybody comes back",
        lambda: fleet.state("connected") == n and len(fleet.first_back_ns(connected_ns)) >= n,
        wanted.window_s + SLACK_S,
        lambda: fleet.state("connected") / n,
    )
    back_ns = max(fleet.first_back_ns(connected_ns).values())
    total = wanted.records * n
    fleet.wait(
        "the last records",
        lambda: fleet.state("produced") == total and fleet.state("waiting") == 0,
        SETTLE_S,
        lambda: fleet.state("produced") / total,
    )
    took_s = time.monotonic() - begin_s
    online, memory, cpu_s = count_online(fleet.database), fleet.memory(), fleet.cloud_cpu_s()
    late = {name: fleet.state(name, max) for name in ("late_ms_p99", "late_ms_max")}
    fleet.stop_workers()
    told("comparing", 1.0)
    counted = _settle(fleet, wanted)
    first = peak_per_s(fleet.connections_ns(begin_ns, killed_ns))
    again = peak_per_s(fleet.connections_ns(connected_ns))
    passed = again <= wanted.limit and not any(counted[k] for k in ("lost", "double", "findings")) and online == n
    return {
        "devices": n, "passed": passed and counted["delivered"] == counted["produced"] == total,
        "broker": "Mosquitto" if fleet.mosquitto else "embedded", "reconnect_spread_s": wanted.spread_s,
        "limit": round(wanted.limit, 2), "connections_per_s_peak": again, "connections_per_s_peak_first": first,
        "connections": len(fleet.connections_ns(connected_ns)), "down_s": round((connected_ns - killed_ns) / 1e9, 2),
        "back_s": round((back_ns - connected_ns) / 1e9, 2), **counted, "online_in_cloud": online, "emulator": late,
        "records_per_s": round(total / took_s, 1), "cloud_cpu_s": round(cpu_s, 1), "peak_rss_bytes": memory,
    }  # fmt: skip


def _pause(what: str, seconds: float, told: Told) -> None:
    begin_s = time.monotonic()
    while (passed_s := time.monotonic() - begin_s) < seconds:
        told(what, passed_s / seconds)
        time.sleep(CHECK_S)


def _settle(fleet: Fleet, wanted: Wanted) -> dict[str, Any]:
    """The ledger of every device, added up."""
    total: dict[str, Any] = dict.fromkeys(("produced", "delivered", "lost", "double", "disordered", "findings"), 0)
    examples: list[str] = []
    produced = fleet.produced()
    for number in range(1, wanted.devices + 1):
        name = device_id(number)
        taken, refused = ledger.read_ledger("\n".join(produced[name]))
        one = ledger.settle(taken, refused, cloud_rows.read_cloud(fleet.database, name))
        for key in total:
            total[key] += getattr(one, key)
        examples += [f"{name}: {text}" for text in one.examples]
    return {**total, "examples": examples[:10]}


def count_online(database: Path) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10.0)) as connection:
        return int(connection.execute("SELECT count(*) FROM device WHERE online").fetchone()[0])


def _keep(folders: Sequence[Path], to: Path) -> None:
    for folder in folders:
        for path in [found for pattern in KEPT for found in folder.glob(pattern)]:
            target = to / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
