"""`gudgeon demo ota`: a simulated line with a real device, and 19 emulated devices, get a better model, then a bad one.

Everything is real but the other 19 lines: enrolment with one-time tokens, mTLS, a TUF repository with offline and online keys,
assignments, downloads, health gates, slots, and the rollouts of the cloud. The first rollout goes from the canary group to all.
The second one offers a model that gives NaN for parts with a bright spot: on the line the shadow check sees it before it ever
answers; the emulated canary devices see such parts only in the evening, on trial, and roll back by themselves. It stops there.

What the report says comes from the PLC's own records, the cloud's rollouts and fleet, and the devices' slot records.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import tomli_w
from rich.console import Console

from edge_runtime.errors import GudgeonError
from edge_runtime.mqtt_access import secret_file
from edge_runtime.wire import manifest as wire
from tools.arguments import PORT, SEED, check_bounds, check_keep
from tools.demo import files, ota_models, processes, report
from tools.demo.ending import carry_out
from tools.demo.files import Plan, Workplace
from tools.demo.ota_fleet import DEVICES, LINE, Fleet, Ports, pictures, run_gudgeon
from tools.demo.ota_report import build, show

DEFAULT_BUNDLE = Path(__file__).resolve().parents[2] / "models" / "surface"
CANARIES = 4
LOOK_S = 0.5
SETTLE_PARTS = 30
ROLLOUT_S = 300.0
GONE = ("finished", "aborted")
#: the registry's path of each model
TARGETS: Mapping[str, str] = {"better": "models/surface/2.0.0.tar", "bad": "models/surface/3.0.0.tar"}


class Demo:
    def __init__(self, plan: Plan, work: Workplace, console: Console) -> None:
        self._plan, self._work, self._console = plan, work, console
        self._running: dict[str, processes.Running] = {}
        self._models, self._registry = work / "models", work / "registry"
        self._cloud = httpx.Client(timeout=10.0)
        self.url = ""

    # ── what runs ───────────────────────────────────────────────────────────────────────────────────────────────────

    def prepare(self) -> None:
        """Models, pictures, registry; the keys of its holders lie in `keys/`."""
        bundle, keys = self._plan.bundle, self._work / "keys"
        ota_models.cautious(bundle, self._models / "cautious")
        ota_models.better(bundle, self._models / "better")
        ota_models.bad(bundle, self._models / "bad")
        pictures(self._work, self._models / "better", self._plan.seed)
        registry = str(self._registry)
        run_gudgeon("repo", "init", registry, "--make-keys", str(keys))
        for name, target in TARGETS.items():
            run_gudgeon("repo", "add", registry, str(self._models / name), target)
        run_gudgeon("sign", registry, "--key", str(keys / "targets/targets.key"))
        run_gudgeon("repo", "publish", registry)

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
        names = ("cautious", "better", "bad")
        digests = {wire.digest((self._models / name / wire.MANIFEST).read_bytes()): name for name in names}
        parts = report.read_parts(self._work / "parts.jsonl")
        return build(parts, decisions, digests, good, bad, fleet)

    def _roll_out(self, name: str) -> dict[str, Any]:
        groups = [
            {"name": "canary", "where": ["ring=canary"], "success": 1.0, "soak_s": 3.0},
            {"name": "all", "success": 0.9},
        ]
        tries = {"tries": 3, "retry_s": 3.0} if name == "better" else {"tries": 1}
        plan = {"groups": groups, **tries, "abort": {"failed": 0.25, "executed": CANARIES}, "max_in_flight": 8}
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
    check_bounds(args, {"parts_per_s": (0.5, 50), "seed": SEED, "http_port": PORT})
    check_keep(args.keep)
    console = Console(stderr=args.json)
    plan = Plan(0, args.parts_per_s, args.bundle, seed=args.seed, http_port=args.http_port)
    return carry_out(
        args, console, lambda work: run(plan, work, console, args.serve), lambda result: show(result, console)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
