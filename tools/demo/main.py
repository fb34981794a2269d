"""`gudgeon demo`: simulated line ⇄ device (control, link) ⇄ broker ⇄ cloud with a live page, all real, on this machine.

It ends after `--parts` with a summary, or runs until Ctrl-C with `--serve`. What the report says of the line comes from
the simulated PLC's own records and from the cloud's, not from the device's counters. `gudgeon demo pdm` (tools/demo/pdm.py)
is another: a pump that wears out; `gudgeon demo ota` a third: a fleet gets a better model, then a bad one.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from edge_runtime.errors import BundleError, GudgeonError
from edge_runtime.field.modbus import ModbusDriver
from edge_runtime.field.tag import Tag
from edge_runtime.wire.manifest import MANIFEST
from tools.arguments import MANY, PORT, SEED, check_bounds, check_keep
from tools.demo import files, processes, report
from tools.demo.ending import carry_out
from tools.demo.files import Plan, Workplace
from tools.demo.killer import Killer

DEFAULT_BUNDLE = Path(__file__).resolve().parents[2] / "models" / "surface"
POLL_S = 0.25
BOUNDS = {"parts": (1, MANY), "parts_per_s": (0.1, 100), "seed": SEED, "http_port": PORT, "kills": (0, 10_000)}
DRAIN_S = 30.0
PAGE = 1000
COMMAND, COMPLETE = Tag("command", "uint16", "holding", 20), 10
COMPLETE_S = 10.0


class Demo:
    """`start` everything, `follow` the line to its end, `finish` with the report; `stop` in any case."""

    def __init__(self, plan: Plan, work: Workplace, console: Console) -> None:
        self._plan, self._work, self._console = plan, work, console
        self._running: dict[str, processes.Running] = {}
        self._http = httpx.Client(timeout=5.0)
        self._stats_url = self._cloud_url = ""
        self._modbus_port = 0
        self._killer = Killer(plan.kills, plan.parts, work / "state/run/processes.json", random.Random(plan.seed))
        self.interrupted = False

    def start(self) -> str:
        """The address of the live page."""
        line = self._start_line()
        self._modbus_port = line["modbus_port"]
        self._stats_url = f"http://127.0.0.1:{line['stats_port']}/stats"
        cloud = self._start("cloud", "cloud", files.cloud_toml(self._work, self._plan, line["stats_port"]))
        self._cloud_url = f"http://127.0.0.1:{cloud['http_port']}"
        config = files.device_toml(self._work, self._plan, line, cloud)
        self._running["device"] = processes.start("device", "run", ["--config", str(config)], self._work / "log")
        return self._cloud_url

    def _start_line(self) -> dict[str, int]:
        plan = self._plan
        args = ["--parts", str(plan.parts), "--parts-per-s", str(plan.parts_per_s), "--seed", str(plan.seed)]
        args += ["--log", str(self._work / "parts.jsonl"), "--wait-for-device"]
        if plan.images:
            args += ["--images", str(plan.images)]
        return self._start("line", "sim", files.line_toml(self._work, plan), ["line"], args)

    def _start(
        self, name: str, command: str, config: Path, sub: list[str] | None = None, args: list[str] | None = None
    ) -> dict[str, int]:
        ready = self._work / f"{name}.ready"
        full = [*(sub or []), "--config", str(config), "--ready-file", str(ready), *(args or [])]
        running = self._running[name] = processes.start(name, command, full, self._work / "log")
        return processes.wait_ready(running, ready, 60.0)

    def follow(self, progress: Progress, bar: TaskID) -> None:
        """Until the last part is settled, or until interrupted."""
        stats = self._stats()
        while not self.interrupted and not stats.get("done"):
            time.sleep(POLL_S if not self._killer.pending else 0.05)
            for running in self._running.values():
                running.check()
            stats = self._stats()
            self._killer.at(stats["parts"])
            progress.update(bar, completed=stats["parts"], told=_told(stats))

    def finish(self) -> dict[str, Any]:
        """Wait for the last Events, stop the device, and join the PLC's log with the cloud's Decisions."""
        if self.interrupted:
            self._complete()
        plc = self._stats()
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline and not self._all_arrived(plc):
            time.sleep(POLL_S)
        restarts = self._restarts()
        self._stop("device")
        decisions = self._decisions()
        recorded = self._recorded()
        plc = self._stats()
        self._stop("line")
        parts = report.read_parts(self._work / "parts.jsonl")
        return report.build(plc, parts, decisions, recorded, restarts, self._killer.kills)

    def _complete(self) -> None:
        """Give the PLC the command Complete, as its operator would, and let the belt run empty."""
        plc = ModbusDriver("127.0.0.1", self._modbus_port)
        plc.connect()
        plc.write([(COMMAND, COMPLETE)])
        plc.close()
        deadline = time.monotonic() + COMPLETE_S
        while time.monotonic() < deadline and not self._stats()["done"]:
            time.sleep(POLL_S)

    def stop(self) -> None:
        for name in ("device", "line", "cloud"):
            self._stop(name)
        self._http.close()

    def _stop(self, name: str) -> None:
        if name in self._running:
            self._running.pop(name).stop()

    def _stats(self) -> dict[str, Any]:
        try:
            stats: dict[str, Any] = self._http.get(self._stats_url).raise_for_status().json()
        except httpx.HTTPError as error:
            raise GudgeonError(f"the line's statistics at {self._stats_url} cannot be read: {error}") from error
        return stats

    def _all_arrived(self, plc: dict[str, Any]) -> bool:
        summary = self._api("/api/v1/summary")
        return int(summary["events_in_cloud"]) + int(summary["unrecorded"]) >= int(plc["answered"])

    def _decisions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self._api("/api/v1/decisions", device="demo-01", after=after, limit=PAGE)
            found += page["items"]
            after = page["next_after"]
        return found

    def _api(self, path: str, **query: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._http.get(self._cloud_url + path, params=query).raise_for_status().json()
        except httpx.HTTPError as error:
            raise GudgeonError(f"the cloud at {self._cloud_url}{path} cannot be read: {error}") from error
        return answer

    def _recorded(self) -> int:
        from edge_runtime.outbox.store import Outbox

        outbox = Outbox(self._work / "state/outbox.db", "demo-01", "report")
        head = outbox.head("decision")
        outbox.close()
        return head

    def _restarts(self) -> dict[str, int]:
        path = self._work / "state/run/processes.json"
        return {name: p["restarts"] for name, p in json.loads(path.read_text()).items()} if path.exists() else {}


def _told(stats: dict[str, Any]) -> str:
    p99 = (stats.get("trigger_to_answer_ms") or {}).get("p99")
    late = "" if p99 is None else f", p99 {p99:.1f} ms"
    return f"{stats['line_state_name']}: {stats['answered']} answered{late}"


def run(plan: Plan, work: Workplace, console: Console) -> dict[str, Any]:
    demo = Demo(plan, work, console)

    def interrupt(number: int, frame: FrameType | None) -> None:
        demo.interrupted = True

    with ExitStack() as stack:
        stack.callback(demo.stop)
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, interrupt))
        with console.status("starting the line, the cloud and the device"):
            url = demo.start()
        console.print(f"live page: [bold]{url}[/bold]   (Ctrl-C stops everything)")
        columns = (
            TextColumn("{task.completed:.0f} parts"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}"),
        )
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("line", total=plan.parts or None, told="")
            demo.follow(progress, bar)
        with console.status("waiting for the last Events"):
            return demo.finish()


def show(result: dict[str, Any], console: Console) -> None:
    latency = result["trigger_to_answer_ms"] or {}

    def share(key: str) -> str:
        return "-" if result[key] is None else f"{result[key]:.3f}"

    def ms(key: str) -> str:
        return "-" if latency.get(key) is None else f"{latency[key]:.2f}"

    rows = [
        ("parts", f"{result['parts']}, {result['answered']} answered, {result['unanswered']} unanswered"),
        ("faults, reviews", f"{result['faults']}, {result['reviews']}"),
        ("recall, overkill, escape", f"{share('recall')}, {share('overkill')}, {share('escape')}"),
        ("trigger → answer at the PLC", f"p50 {ms('p50')} ms, p99 {ms('p99')} ms, max {ms('max')} ms"),
        ("answers later than 20 ms", str(latency.get("late_20ms"))),
        ("engine, variant", f"{result['engine']}, {result['variant']}, bundle {result['bundle_digest'][:12]}"),
        ("Decisions recorded, in the cloud", f"{result['events_recorded']}, {result['events_in_cloud']}"),
        ("unrecorded, duplicates", f"{result['unrecorded']}, {result['duplicates_in_cloud']}"),
        ("answered but unknown in the cloud", str(result["answered_parts_missing_in_cloud"])),
        ("restarts", str(result["restarts"])),
    ]
    if result["kills"]:
        rows.append(
            ("kill -9, slowest recovery of control", f"{result['kills']}, {result['control_recovery_s']['max']} s")
        )
    table = Table(show_header=False, title="the line, as the PLC and the cloud saw it")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gudgeon demo", description=__doc__)
    parser.add_argument("--parts", type=int, default=500, help="how many parts (500)")
    parser.add_argument("--parts-per-s", type=float, default=10.0, help="line speed (10)")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="labelled images instead of rendered ones; split `test`"
    )
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE, metavar="PATH")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--serve", action="store_true", help="run until Ctrl-C")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--http-port", type=int, default=0, help="port of the live page (any free one)")
    parser.add_argument("--protocol", choices=("modbus", "opcua"), default="modbus")
    parser.add_argument("--kills", type=int, default=0, help="kill -9 control and link so many times in all")
    parser.add_argument("--hog", action="store_true", help="a busy loop in link")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep configuration, logs and data in DIR")
    args = parser.parse_args(argv)
    check_bounds(args, BOUNDS)
    if not (args.bundle / MANIFEST).is_file():
        raise BundleError(
            f"bundle {args.bundle}: no such bundle; make one with `gudgeon train surface` or `make model`"
        )
    check_keep(args.keep)
    return args


def main(argv: list[str]) -> int:
    if argv[:1] == ["pdm"]:
        from tools.demo import pdm

        return pdm.main(argv[1:])
    if argv[:1] == ["ota"]:
        from tools.demo import ota

        return ota.main(argv[1:])
    args = parse(argv)
    console = Console(stderr=args.json)
    plan = Plan(
        0 if args.serve else args.parts, args.parts_per_s, args.bundle, args.images, args.seed, args.http_port,
        args.kills, args.hog, args.protocol,
    )  # fmt: skip
    return carry_out(args, console, lambda work: run(plan, work, console), lambda result: show(result, console))
