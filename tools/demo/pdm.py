"""`gudgeon demo pdm`: a simulated pump wears out in minutes; a device (monitor, link) watches it with the shipped bundles, a
cloud shows it, and the network is away for a while as the fault grows. All real, on this machine.

The pump runs `SPEED` times faster than the clock, so that half a second is an hour of its life. What the summary says of
alarm and lead time is the pump's own truth joined with the Events that the cloud has.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from edge_runtime.errors import GudgeonError, UsageError
from edge_runtime.outbox.store import Outbox
from firmware_sim.pump.life import Life, draw
from firmware_sim.pump.tags import TAGS
from tools.arguments import PORT, SEED, check_bounds, check_keep
from tools.chaos.pair import free_port
from tools.chaos.proxy import ProxyControl
from tools.demo import processes
from tools.demo.ending import carry_out
from tools.demo.files import Workplace
from tools.pdm.pump.data import GRID_S, MEAN_LIFE_DAYS, ROW_H, SPEED

BUNDLES = Path(__file__).resolve().parents[2] / "models" / "pump"
DEVICE, ASSET = "demo-01", "pump-1"
POLL_S = 0.25
AFTER_FAILURE_S = 4.0
DRAIN_S = 40.0
OFFLINE_AFTER_BEGIN, OFFLINE_SHARE = 0.05, 0.35  # of the time from the fault to the failure
PAGE = 1000


@dataclass(frozen=True)
class Plan:
    """`start_at`: share of the life that is over at the start. `begin_s`, `failure_s`: real seconds after the start."""

    seed: int
    mode: str
    start_at: float
    begin_s: float
    failure_s: float
    http_port: int = 0

    @property
    def offline_s(self) -> tuple[float, float]:
        """From, to: real seconds after the start."""
        wear_s = self.failure_s - self.begin_s
        start_s = self.begin_s + OFFLINE_AFTER_BEGIN * wear_s
        return start_s, start_s + OFFLINE_SHARE * wear_s


def plan_of(seed: int, minutes: float, http_port: int = 0) -> Plan:
    """The last `minutes` of the pump's life, or all of it where it is shorter."""
    life: Life = draw(seed, MEAN_LIFE_DAYS, "")
    skipped_s = max(0.0, life.failure_s - minutes * 60 * SPEED)
    if skipped_s > life.begin_s:
        least = (life.failure_s - life.begin_s) / SPEED / 60
        raise UsageError(
            f"--minutes {minutes:g}: the fault of the pump with seed {seed} begins {least:.1f} minutes before it fails; "
            "give more minutes or another --seed"
        )
    begin_s, failure_s = ((t - skipped_s) / SPEED for t in (life.begin_s, life.failure_s))
    return Plan(seed, life.mode, skipped_s / life.failure_s, begin_s, failure_s, http_port)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def pump_toml(work: Workplace, plan: Plan) -> Path:
    ports = {name: {"port": 0} for name in ("modbus", "stats")}
    pump = {"seed": plan.seed, "speed": SPEED, "start_at": plan.start_at, "tag_period_ms": 100}
    return work.write(
        "pump.toml",
        {"pump": pump, "truth": str(work / "truth.jsonl"), "opcua": {"enabled": False, "port": 0}, **ports},
    )


def cloud_toml(work: Workplace, plan: Plan) -> Path:
    broker = {"embedded": True, "port": 0}
    return work.write(
        "cloud.toml", {"http": {"port": plan.http_port}, "broker": broker, "store": {"url": "sqlite:///cloud.db"}}
    )


def device_toml(work: Workplace, modbus_port: int, broker_port: int) -> Path:
    row_s = GRID_S
    data = {
        "device": {"id": DEVICE, "state_dir": "state"},
        "broker": {"port": broker_port, "keepalive_s": 5},
        "metrics": {"port": 0},
        "endpoints": [{"name": "pump", "protocol": "modbus-tcp", "port": modbus_port}],
        "tags": [tag(t.name, t.kind, t.address, t.unit) for t in TAGS],
        "assets": [
            {
                "name": ASSET,
                "bundles": {"anomaly": str(BUNDLES / "anomaly"), "rul": str(BUNDLES / "rul")},
                "running": {"tag": "speed", "above": 100.0, "fresh_s": 5.0},
                "alarms": {"on_delay_s": 2 * row_s, "off_delay_s": 12 * row_s},
                "remaining": {"times_faster": SPEED, "critical_h": 12.0, "high_h": 24.0, "medium_h": 72.0},
                "report_s": 2.0,
                "rules": [
                    {"name": "bearing-hot", "kind": "above", "tag": "bearing_temp", "limit": 95.0, "hysteresis": 3.0,
                     "severity": "critical", "fresh_s": 5.0, "while_running": True},
                ],
            }
        ],
    }  # fmt: skip
    return work.write("device.toml", data)


def tag(name: str, kind: str, address: int, unit: str) -> dict[str, Any]:
    scaled = {"scale": 0.1} if kind == "int16" else {}
    return {
        "name": name, "endpoint": "pump", "type": kind, "space": "input", "address": address, "unit": unit,
        "period_s": 0.1, "report_every_s": 5.0, **deadband(name), **scaled,
    }  # fmt: skip


def deadband(name: str) -> dict[str, float]:
    """A two-hundredth of the sensor's span."""
    span = next(t.high - t.low for t in TAGS if t.name == name)
    return {"deadband": span / 200}


# ── run ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Demo:
    """`start` everything, `follow` the pump to its failure, `finish` with the report; `stop` in any case."""

    def __init__(self, plan: Plan, work: Workplace) -> None:
        self._plan, self._work = plan, work
        self._running: dict[str, processes.Running] = {}
        self._http = httpx.Client(timeout=5.0)
        self._stats_url = self._cloud_url = ""
        self._proxy: ProxyControl | None = None
        self._offline: tuple[int, int] | None = None
        self.interrupted = False

    def start(self) -> str:
        """The address of the page."""
        cloud = self._start("cloud", "cloud", [], cloud_toml(self._work, self._plan))
        self._cloud_url = f"http://127.0.0.1:{cloud['http_port']}"
        port, control = free_port(), self._work / "proxy.sock"
        self._running["network"] = processes.start_module(
            "network", "tools.chaos.proxy",
            ["--listen", f"127.0.0.1:{port}", "--to", f"127.0.0.1:{cloud['broker_port']}", "--control", str(control)],
            self._work / "log",
        )  # fmt: skip
        pump = self._start("pump", "sim", ["pump"], pump_toml(self._work, self._plan))
        self._stats_url = f"http://127.0.0.1:{pump['stats_port']}/stats"
        config = device_toml(self._work, pump["modbus_port"], port)
        self._running["device"] = processes.start("device", "run", ["--config", str(config)], self._work / "log")
        processes.wait_path(self._running["network"], control)
        self._proxy = ProxyControl(control)
        return f"{self._cloud_url}/assets"

    def _start(self, name: str, command: str, sub: list[str], config: Path) -> dict[str, Any]:
        ready = self._work / f"{name}.ready"
        args = [*sub, "--config", str(config), "--ready-file", str(ready)]
        running = self._running[name] = processes.start(name, command, args, self._work / "log")
        return processes.wait_ready(running, ready, 60.0)

    def follow(self, progress: Progress, bar: TaskID) -> None:
        """Until the pump has failed, or until interrupted."""
        start_s, end_s = self._plan.offline_s
        away = False
        while not self.interrupted:
            time.sleep(POLL_S)
            for running in self._running.values():
                running.check()
            stats = self._get(self._stats_url)
            now_s = stats["sim_s"] / SPEED - self._plan.start_at / (1 - self._plan.start_at) * self._plan.failure_s
            if (start_s <= now_s < end_s) != away:
                away = not away
                self._network(away)
            progress.update(bar, completed=min(now_s, self._plan.failure_s), told=self._told(stats, away))
            if stats["failed"]:
                break
        if away:
            self._network(away=False)
        if not self.interrupted:
            time.sleep(AFTER_FAILURE_S)

    def _network(self, away: bool) -> None:
        assert self._proxy is not None
        self._proxy.set(refuse=away)
        if away:
            self._proxy.cut()
            self._offline = (time.time_ns(), 0)
        elif self._offline:
            self._offline = (self._offline[0], time.time_ns())

    def _told(self, stats: Mapping[str, Any], away: bool) -> str:
        alarms = [a for a in self._get(self._cloud_url + "/api/v1/alarms") if a["active"]]
        worst = f", alarm {alarms[0]['severity']}" if alarms else ""
        left = "-" if stats["rul_s"] is None else f"{stats['rul_s'] / 3600:.0f} h left"
        return f"health {stats['health']:.2f}, {left}{worst}{', network away' if away else ''}"

    def finish(self) -> dict[str, Any]:
        """Wait for the last Events, stop the device, and join truth and Events."""
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline and not self._drained():
            time.sleep(POLL_S)
        self._stop("device")
        produced = self._produced()
        events = self._events("alarm")
        states = [e for e in self._events("telemetry") if e["kind"] == f"asset.{ASSET}"]
        truth = [json.loads(line) for line in (self._work / "truth.jsonl").read_text().splitlines()]
        delivered = self._device()["committed"]
        return build(self._plan, truth, events, states, produced, delivered, self._offline)

    def _drained(self) -> bool:
        """Nothing that was produced a moment ago is missing."""
        produced, before = self._produced(), self._device().get("committed", {})
        return all(before.get(stream, 0) >= head - 5 for stream, head in produced.items())

    def _produced(self) -> dict[str, int]:
        outbox = Outbox(self._work / "state/outbox.db", DEVICE, "report")
        try:
            return {stream: head for stream in STREAMS_COUNTED if (head := outbox.head(stream))}
        finally:
            outbox.close()

    def _device(self) -> dict[str, Any]:
        found = [d for d in self._get(self._cloud_url + "/api/v1/devices") if d["device"] == DEVICE]
        return found[0] if found else {}

    def _events(self, stream: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            query = {"device": DEVICE, "stream": stream, "after": after, "limit": PAGE}
            page = self._get(self._cloud_url + "/api/v1/events", **query)
            found += page["items"]
            after = page["next_after"]
        return found

    def _get(self, url: str, **query: Any) -> Any:
        try:
            return self._http.get(url, params=query).raise_for_status().json()
        except httpx.HTTPError as error:
            raise GudgeonError(f"{url} cannot be read: {error}") from error

    def stop(self) -> None:
        if self._proxy is not None:
            self._proxy.close()
        for name in ("device", "pump", "network", "cloud"):
            self._stop(name)
        self._http.close()

    def _stop(self, name: str) -> None:
        if name in self._running:
            self._running.pop(name).stop()


STREAMS_COUNTED = ("alarm", "fault", "health", "telemetry", "metric", "command")


# ── report ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def build(
    plan: Plan,
    truth: Sequence[Mapping[str, Any]],
    alarms: Sequence[Mapping[str, Any]],
    states: Sequence[Mapping[str, Any]],
    produced: Mapping[str, int],
    delivered: Mapping[str, int],
    offline: tuple[int, int] | None,
) -> dict[str, Any]:
    """The report. `truth`: the simulator's rows; `alarms`, `states`: Events as the cloud tells them. Pure."""
    at = {row["event"]: row["wall_ns"] for row in truth if row["event"] in ("fault_begin", "failure")}
    raised = [e for e in alarms if e["kind"] in ("raised", "escalated") and e["body"]["source"] != "samples"]
    before = [e for e in raised if e["wall_ns"] < at.get("fault_begin", math.inf)]
    after = [e for e in raised if at.get("fault_begin", math.inf) <= e["wall_ns"] < at.get("failure", math.inf)]
    first, failure = (after[0] if after else None), at.get("failure")
    seconds = (failure - first["wall_ns"]) / 1e9 if first and failure else None
    errors = _life_errors(truth, states)
    while_away = [e for e in alarms if offline and offline[0] <= e["wall_ns"] < offline[1]]
    return {
        "seed": plan.seed,
        "fails_by": plan.mode,
        "fault_begin_wall_ns": at.get("fault_begin"),
        "failure_wall_ns": failure,
        "alarm_wall_ns": first["wall_ns"] if first else None,
        "alarm_source": first["body"]["source"] if first else None,
        "alarm_severity": first["body"]["severity"] if first else None,
        "alarm_tags": [name for name, _ in first["body"].get("shares", [])[:3]] if first else [],
        "worst_severity": max((e["body"]["severity"] for e in after), key=SEVERITY_ORDER.index, default=None),
        "lead_time_s": None if seconds is None else round(seconds, 2),
        "lead_time_h": None if seconds is None else round(seconds / GRID_S * ROW_H, 1),
        "false_alarms": len(before),
        "remaining_life_mean_abs_error_h": round(sum(errors) / len(errors), 1) if errors else None,
        "offline_s": round((offline[1] - offline[0]) / 1e9, 1) if offline else 0.0,
        "alarm_events_while_offline": len(while_away),
        "records_produced": dict(produced),
        "records_delivered": {stream: delivered.get(stream, 0) for stream in produced},
        "records_missing": sum(max(0, head - delivered.get(stream, 0)) for stream, head in produced.items()),
    }


SEVERITY_ORDER = ("low", "medium", "high", "critical")


def _life_errors(truth: Sequence[Mapping[str, Any]], states: Sequence[Mapping[str, Any]]) -> list[float]:
    """|smoothed − true| in hours, at each state of the truth, of the newest answer that is not older than two seconds; where
    less than a week is left."""
    told = [
        (e["wall_ns"], e["body"]["remaining"]["smoothed"])
        for e in states
        if "smoothed" in e["body"].get("remaining", {})
    ]
    told.sort()
    errors, i = [], -1
    for row in truth:
        if row["event"] != "state" or row["rul_s"] is None or not 0 < row["rul_s"] <= 168 * 3600:
            continue
        while i + 1 < len(told) and told[i + 1][0] <= row["wall_ns"]:
            i += 1
        if i >= 0 and row["wall_ns"] - told[i][0] <= 2_500_000_000 and told[i][1] is not None:
            errors.append(abs(told[i][1] - row["rul_s"] / 3600))
    return errors


def show(r: Mapping[str, Any], console: Console) -> None:
    table = Table(show_header=False, title="the pump, as its truth and the cloud tell it")
    lead = "no alarm" if r["lead_time_h"] is None else f"{r['lead_time_h']} h of the pump ({r['lead_time_s']} s here)"
    rows = [
        ("the pump fails by", str(r["fails_by"])),
        ("first alarm", f"{r['alarm_source']}, {r['alarm_severity']}; tags {', '.join(r['alarm_tags']) or '-'}"),
        ("worst severity before the failure", str(r["worst_severity"])),
        ("lead time", lead),
        ("alarms before the fault began", str(r["false_alarms"])),
        ("remaining life, mean error in the last week", f"{r['remaining_life_mean_abs_error_h']} h"),
        ("network away", f"{r['offline_s']} s; {r['alarm_events_while_offline']} alarm Events in it"),
        ("records produced, missing in the cloud", f"{sum(r['records_produced'].values())}, {r['records_missing']}"),
    ]
    for row in rows:
        table.add_row(*row)
    console.print(table)


def run(plan: Plan, work: Workplace, console: Console) -> dict[str, Any]:
    demo = Demo(plan, work)

    def interrupt(number: int, frame: FrameType | None) -> None:
        demo.interrupted = True

    with ExitStack() as stack:
        stack.callback(demo.stop)
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, interrupt))
        with console.status("starting the pump, the cloud and the device"):
            url = demo.start()
        console.print(f"live page: [bold]{url}[/bold]   (Ctrl-C stops everything)")
        columns = (TextColumn("pump"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[told]}"))
        with Progress(*columns, console=console) as progress:
            demo.follow(progress, progress.add_task("pump", total=plan.failure_s, told=""))
        with console.status("waiting for the last Events"):
            return demo.finish()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gudgeon demo pdm", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=3.0, help="the last minutes of the pump's life (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="which pump (default: %(default)s)")
    parser.add_argument("--http-port", type=int, default=0, help="port of the live page (any free one)")
    parser.add_argument("--report", type=Path, metavar="F", help="write the report as JSON")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep configuration, logs and data in DIR")
    args = parser.parse_args(argv)
    check_bounds(args, {"minutes": (0.5, 60), "seed": SEED, "http_port": PORT})
    check_keep(args.keep)
    plan, console = plan_of(args.seed, args.minutes, args.http_port), Console(stderr=args.json)
    return carry_out(args, console, lambda work: run(plan, work, console), lambda result: show(result, console))
