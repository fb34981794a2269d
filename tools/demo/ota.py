"""`gudgeon demo ota`: a simulated line with a real device, and 19 emulated devices, get a better model, then a bad one.

Everything is real but the other 19 lines: enrolment with one-time tokens, mTLS, a TUF repository with offline and online keys,
assignments, downloads, health gates, slots, and the rollouts of the cloud. The first rollout goes from the canary group to all. The
second one offers a model that gives NaN for parts with a bright spot: on the line the shadow check sees it before it ever
answers; the emulated canary devices see such parts only in the evening, on trial, and roll back by themselves. The rollout stops.

What the report says comes from the PLC's own records, the cloud's rollouts and fleet, and the devices' slot records.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tomli_w
from rich.console import Console
from rich.table import Table

from cloud.registry.artifacts import add
from cloud.registry.making import make_registry, release
from cloud.registry.publishing import utc_now
from edge_runtime.config import load_device
from edge_runtime.errors import GudgeonError, UsageError
from edge_runtime.identity.enroll_cli import enroll
from edge_runtime.infer import bundle as bundles
from edge_runtime.mqtt_access import secret_file
from edge_runtime.update.install import install
from edge_runtime.wire import manifest as wire
from edge_runtime.wire.enrolment import read_token
from tools.demo import files, ota_models, processes, report
from tools.demo.ending import carry_out
from tools.demo.files import Plan, Workplace

DEFAULT_BUNDLE = Path(__file__).resolve().parents[2] / "models" / "surface"
LINE = "line-01"
DEVICES, CANARIES = 20, 4
PICTURES = 240
EVENING_SHARE = 4  # one part in so many has a bright spot in the evening
LOOK_S = 0.5
SETTLE_PARTS = 30
ROLLOUT_S = 300.0
GONE = ("finished", "aborted")
#: the registry's path of each model
TARGETS: Mapping[str, str] = {"better": "models/surface/2.0.0.tar", "bad": "models/surface/3.0.0.tar"}
TRIAL = {"parts": 40, "most_parts": 200, "soak_s": 2.0}


@dataclass(frozen=True)
class Ports:
    line: dict[str, int]
    cloud: dict[str, int]


class Fleet:
    """The folders of the devices, and how they are enrolled."""

    def __init__(self, work: Workplace, models: Path, plan: Plan) -> None:
        self._work, self._models, self._plan = work, models, plan
        self.names = [LINE, *(f"device-{n:02d}" for n in range(2, DEVICES + 1))]

    def configure(self, ports: Ports) -> dict[str, Path]:
        """device → its `device.toml`; all start with the cautious model, confirmed."""
        configs = {}
        for name in self.names:
            folder = Workplace(self._work / name)
            written = files.device_toml(folder, self._plan, ports.line, ports.cloud).read_text()
            import tomllib

            data = tomllib.loads(written)
            data["device"]["id"] = name
            del data["bundle"]["path"]
            data["identity"] = {"hardware_id": f"demo-{name}"}
            data["update"] = {"url": f"https://127.0.0.1:{ports.cloud['devices_port']}", "poll_s": 2.0}
            data["trial"] = TRIAL
            data["metrics"] = {"port": 0}
            configs[name] = folder.write("device.toml", data)
        first = self._work / LINE / "state"
        install(self._models / "cautious", first)
        for name in self.names[1:]:
            shutil.copytree(first, self._work / name / "state", dirs_exist_ok=True)
        return configs

    def enrol(self, configs: Mapping[str, Path], root: Path, token_for: Callable[[str, str], str]) -> None:
        for name, config in configs.items():
            device = load_device(config)
            hardware = device.identity.hardware_id
            enroll(device, device.update.url, read_token(token_for(name, hardware)), hardware, None, False)
            trust = device.device.state_dir / "trust"
            trust.mkdir(exist_ok=True)
            shutil.copyfile(root, trust / "root.json")


class Demo:
    def __init__(self, plan: Plan, work: Workplace, console: Console) -> None:
        self._plan, self._work, self._console = plan, work, console
        self._running: dict[str, processes.Running] = {}
        self._models, self._registry = work / "models", work / "registry"
        self._cloud = httpx.Client(timeout=10.0)
        self.url = ""

    # ── what runs ───────────────────────────────────────────────────────────────────────────────────────────────────

    def prepare(self) -> None:
        """Models, pictures, registry; the keys of their holders lie in `keys/`."""
        bundle = self._plan.bundle
        ota_models.cautious(bundle, self._models / "cautious")
        ota_models.better(bundle, self._models / "better")
        ota_models.bad(bundle, self._models / "bad")
        self._pictures()
        now = utc_now()
        registry = make_registry(self._registry, self._work / "keys", now)
        for name, target in TARGETS.items():
            add(registry, self._models / name, target, now)
        release(registry, self._work / "keys", now)

    def _pictures(self) -> None:
        rendered = self._work / "rendered"
        command = [
            sys.executable,
            "-m",
            "edge_runtime.cli",
            "sim",
            "images",
            "--out",
            str(rendered),
            "--n",
            str(PICTURES),
        ]
        done = subprocess.run([*command, "--seed", str(self._plan.seed)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise GudgeonError(f"pictures could not be rendered: {done.stderr.strip()}")
        spec = bundles.load(self._models / "better").manifest.input
        day, evening = self._work / "frames/day", self._work / "frames/evening"
        for folder in (day, evening):
            folder.mkdir(parents=True)
        from PIL import Image

        plain, bright = list[Path](), list[Path]()
        for file in sorted(rendered.rglob("*.png")):
            pixels = np.asarray(Image.open(file).convert("L"))
            (plain if ota_models.brightest(pixels, spec) < ota_models.BRIGHT else bright).append(file)
        for n, file in enumerate(plain):
            shutil.copyfile(file, day / f"{n:04d}.png")
        for n, file in enumerate(bright + plain[: (EVENING_SHARE - 1) * len(bright)]):
            shutil.copyfile(file, evening / f"{n:04d}.png")

    def start(self) -> None:
        line = self._start("line", "sim", files.line_toml(self._work, self._plan), ["line"], self._line_args())
        cloud = self._start("cloud", "cloud", self._cloud_toml(line["stats_port"]))
        self.url = f"http://127.0.0.1:{cloud['http_port']}"
        token = secret_file(self._work / "cloud.token")
        self._cloud.headers["authorization"] = f"Bearer {token}"
        fleet = Fleet(self._work, self._models, self._plan)
        configs = fleet.configure(Ports(line, cloud))
        fleet.enrol(configs, self._registry / "repo/metadata/1.root.json", self._token)
        log = self._work / "log"
        self._running["device"] = processes.start("device", "run", ["--config", str(configs[LINE])], log)
        others = [str(path) for name, path in configs.items() if name != LINE]
        args = ["--frames", str(self._work / "frames"), *others]
        self._running["fleet"] = processes.start_module("fleet", "tools.fleet.updaters", args, log)
        self._wait("all devices", lambda: len(self._api("/fleet/devices")["items"]) == DEVICES, 120.0)
        for name in fleet.names[:CANARIES]:
            self._post(f"/fleet/devices/{name}/tags", {"set": {"ring": "canary"}})

    def _line_args(self) -> list[str]:
        args = ["--parts", "1000000", "--parts-per-s", str(self._plan.parts_per_s), "--seed", str(self._plan.seed)]
        return [*args, "--log", str(self._work / "parts.jsonl"), "--wait-for-device"]

    def _cloud_toml(self, stats_port: int) -> Path:
        path = files.cloud_toml(self._work, self._plan, stats_port)
        more = {
            "devices": {"serve": True, "port": 0},
            "registry": {"folder": str(self._registry)},
            "rollouts": {"busy_s": 2, "waiting_s": 2, "idle_s": 2},
        }
        path.write_text(path.read_text() + "\n" + tomli_w.dumps(more))
        return path

    def _start(
        self, name: str, command: str, config: Path, sub: Sequence[str] = (), args: Sequence[str] = ()
    ) -> dict[str, int]:
        ready = self._work / f"{name}.ready"
        full = [*sub, "--config", str(config), "--ready-file", str(ready), *args]
        running = self._running[name] = processes.start(name, command, full, self._work / "log")
        return processes.wait_ready(running, ready, 60.0)

    def stop(self) -> None:
        for name in ("device", "fleet", "line", "cloud"):
            if name in self._running:
                self._running.pop(name).stop()
        self._cloud.close()

    # ── the story ───────────────────────────────────────────────────────────────────────────────────────────────────

    def tell(self) -> dict[str, Any]:
        self._parts_more(2 * SETTLE_PARTS)
        good = self._roll_out("better")
        self._parts_more(3 * SETTLE_PARTS)
        bad = self._roll_out("bad")
        self._parts_more(SETTLE_PARTS)
        fleet = self._api("/fleet/devices")["items"]
        decisions = self._decisions()
        self._running.pop("device").stop()
        self._running.pop("line").stop()
        return self._build(good, bad, fleet, decisions)

    def _roll_out(self, name: str) -> dict[str, Any]:
        groups = [
            {"name": "canary", "where": ["ring=canary"], "success": 1.0, "soak_s": 3.0},
            {"name": "all", "success": 0.9},
        ]
        plan = {"groups": groups, "tries": 1, "abort": {"failed": 0.05, "executed": CANARIES}, "max_in_flight": 8}
        body = {"id": name, "slot_set": "default", "target": TARGETS[name], "plan": plan}
        self._post("/rollouts", body)
        self._console.print(f"[bold]{name}[/bold]: {TARGETS[name]} to {CANARIES} canary devices, then to all {DEVICES}")
        said = ""

        def ended() -> dict[str, Any] | None:
            nonlocal said
            now = self._api(f"/rollouts/{name}")
            text = f"  {now['state']}: given to {now['exposed']}, confirmed {now['confirmed']}, failed {now['failed']}"
            if text != said:
                said = text
                self._console.print(text)
            return now if now["state"] in GONE else None

        self._wait(f"the end of rollout {name}", ended, ROLLOUT_S)
        found = self._api(f"/rollouts/{name}")
        if found["reason"]:
            self._console.print(f"  {found['reason']}")
        found["devices"] = self._api(f"/rollouts/{name}/devices?limit=100")["items"]
        return dict(found)

    def _parts_more(self, count: int) -> None:
        seen = len(report.read_parts(self._work / "parts.jsonl"))
        self._wait("the line", lambda: len(report.read_parts(self._work / "parts.jsonl")) >= seen + count, 120.0)

    def _wait(self, what: str, done: Callable[[], Any], timeout_s: float) -> Any:
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            for running in self._running.values():
                running.check()
            if value := done():
                return value
            time.sleep(LOOK_S)
        raise GudgeonError(f"{what}: not within {timeout_s:.0f} s")

    # ── the cloud ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _api(self, path: str, **query: Any) -> Any:
        try:
            return self._cloud.get(f"{self.url}/api/v1{path}", params=query or None).raise_for_status().json()
        except httpx.HTTPError as error:
            raise GudgeonError(f"the cloud at {self.url}{path} cannot be read: {error}") from error

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        answer = self._cloud.post(f"{self.url}/api/v1{path}", json=body)
        if answer.is_error:
            raise GudgeonError(f"the cloud refused {path}: {answer.text[:300]}")
        return answer.json()

    def _token(self, name: str, hardware: str) -> str:
        return str(self._post(f"/identities/{name}/token", {"hardware": hardware})["token"])

    def _decisions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self._api("/decisions", device=LINE, after=after, limit=1000)
            found += page["items"]
            after = page["next_after"]
        return found

    # ── the report ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _build(
        self, good: dict[str, Any], bad: dict[str, Any], fleet: list[dict[str, Any]], decisions: list[dict[str, Any]]
    ) -> dict[str, Any]:
        parts = report.read_parts(self._work / "parts.jsonl")
        digests = {
            wire.digest((self._models / name / wire.MANIFEST).read_bytes()): name
            for name in ("cautious", "better", "bad")
        }
        slots = {d["device"]: d["slots"]["default"] for d in fleet}
        runs: dict[str, int] = defaultdict(int)
        for slot in slots.values():
            runs[
                "better"
                if slot["confirmed"] == good["sha256"]
                else "bad"
                if slot["confirmed"] == bad["sha256"]
                else "cautious"
            ] += 1
        ends = defaultdict[str, int](int)
        for slot in slots.values():
            if slot["sha256"] == bad["sha256"]:
                ends[slot["state"]] += 1
        return {
            "line": line_by_model(parts, decisions, digests),
            "unanswered": sum(not p["answered"] for p in parts),
            "trigger_to_answer_ms": percentiles([p["latency_ms"] for p in parts if p["answered"]]),
            "rollouts": {name: _short(found) for name, found in (("better", good), ("bad", bad))},
            "running_after": dict(runs),
            "bad_ended_as": dict(ends),
            "reasons": sorted({d["reason"] for d in bad["devices"] if d["reason"]}),
        }


def _short(rollout: Mapping[str, Any]) -> dict[str, Any]:
    names = ("state", "reason", "exposed", "confirmed", "failed")
    return {name: rollout[name] for name in names} | {"took_s": (rollout["changed_ns"] - rollout["started_ns"]) / 1e9}


def line_by_model(
    parts: Sequence[Mapping[str, Any]], decisions: Sequence[Mapping[str, Any]], digests: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """What each model did on the line: parts, and the share of the defects that the PLC took out."""
    by_part = {d["part_seq"]: digests.get(d["bundle_digest"] or "", "") for d in decisions if d["part_seq"] is not None}
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        name = by_part.get(part["part_seq"], "")
        if name:
            row = found.setdefault(name, {"parts": 0, "defects": 0, "taken_out": 0})
            row["parts"] += 1
            row["defects"] += part["truth_defect"]
            row["taken_out"] += part["truth_defect"] and part["diverted"]
    for row in found.values():
        row["recall"] = row["taken_out"] / row["defects"] if row["defects"] else None
    return found


def percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    found = np.percentile(values, (50, 99, 100))
    return {name: round(float(value), 3) for name, value in zip(("p50", "p99", "max"), found, strict=True)}


def show(result: Mapping[str, Any], console: Console) -> None:
    table = Table(title="over the air", show_header=False)
    for name, found in result["rollouts"].items():
        told = f"{found['state']}: given to {found['exposed']}, confirmed {found['confirmed']}, failed {found['failed']}, {found['took_s']:.0f} s"
        table.add_row(f"rollout of the {name} model", told)
    for name, row in result["line"].items():
        recall = "-" if row["recall"] is None else f"{row['recall']:.2f}"
        table.add_row(
            f"on the line: {name} model",
            f"{row['parts']} parts, {row['taken_out']} of {row['defects']} defects taken out ({recall})",
        )
    table.add_row("devices run after", ", ".join(f"{count} {name}" for name, count in result["running_after"].items()))
    table.add_row(
        "the bad model ended as", ", ".join(f"{count} {name}" for name, count in result["bad_ended_as"].items())
    )
    for reason in result["reasons"]:
        table.add_row("because", reason)
    latency = result["trigger_to_answer_ms"]
    table.add_row("parts without an answer", str(result["unanswered"]))
    table.add_row(
        "trigger → answer at the PLC",
        f"p50 {latency.get('p50')} ms, p99 {latency.get('p99')} ms, max {latency.get('max')} ms",
    )
    console.print(table)


def run(plan: Plan, work: Workplace, console: Console, serve: bool) -> dict[str, Any]:
    demo = Demo(plan, work, console)
    with ExitStack() as stack:
        stack.callback(demo.stop)
        with console.status("making models, keys, registry and pictures"):
            demo.prepare()
        with console.status(f"starting the line, the cloud and {DEVICES} devices; enrolling them"):
            demo.start()
        console.print(f"live pages: [bold]{demo.url}/rollouts[/bold]  {demo.url}/fleet   (Ctrl-C stops everything)")
        result = demo.tell()
        if serve:
            show(result, console)
            console.print("the pages stay until Ctrl-C")
            try:
                while True:
                    time.sleep(1.0)
            except KeyboardInterrupt:
                pass
        return result


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gudgeon demo ota", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts-per-s", type=float, default=8.0, help="line speed (8)")
    parser.add_argument(
        "--bundle", type=Path, default=DEFAULT_BUNDLE, metavar="PATH", help="the model that all are made of"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--serve", action="store_true", help="keep the pages until Ctrl-C")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--http-port", type=int, default=0, help="port of the pages (any free one)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep configuration, keys, logs and data in DIR")
    args = parser.parse_args(argv)
    if not 0.5 <= args.parts_per_s <= 50:
        raise UsageError("--parts-per-s must be between 0.5 and 50")
    if args.keep and args.keep.exists() and any(args.keep.iterdir()):
        raise UsageError(f"--keep {args.keep}: the folder is not empty; choose a new one")
    console = Console(stderr=args.json)
    plan = Plan(0, args.parts_per_s, args.bundle, seed=args.seed, http_port=args.http_port)
    return carry_out(
        args, console, lambda work: run(plan, work, console, args.serve), lambda result: show(result, console)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
