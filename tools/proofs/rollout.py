"""`make rollout-sim`: ten thousand simulated devices through the rollout code that `gudgeon cloud` runs, by a fake clock.

The store is real (SQLite on a disk), and so are the plan, the clock's step, the answer to devices and the signatures under it.
Most devices ask in batches through the function behind the route; some ask through the route itself, over ASGI. Devices ask
when the last answer told them to. A share of the fleet is switched off from the start.

Each scenario states what must come out, and the run fails where it does not: a good artifact is confirmed by every device that
can be reached and is not itself at fault; a bad one is stopped when no more devices were exposed than the canary has and may
be in flight; never is more in flight than allowed, and no device activates an artifact twice.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from fastapi.testclient import TestClient
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from cloud.devices.peer import certified
from cloud.rollout import clock, fleet, polling, routes, shown, store
from cloud.rollout.offer import Artifact
from cloud.rollout.plan import read_plan
from cloud.rollout.registry import InMemory, MemoryRegistry
from cloud.rollout.simulated import SimulatedDevice
from cloud.store.opening import open_store
from edge_runtime.errors import exit_code
from edge_runtime.wire.update_status import read_status
from tools.arguments import SEED, check_bounds

S_NS = 1_000_000_000
START_S = 1_780_000_000
TARGET, SHA256, SLOT_SET = "models/surface/2.tar", "b" * 64, "default"
TICK_S = 10
LONGEST_S = 12 * 3600
BATCH = 500
OFF_SHARE = 0.02
CANARIES = (10, 20, 50, 100, 200, 500)
#: share of devices on which it fails, share at which the rollout stops
ODDS = ((0.30, 0.05), (0.10, 0.05), (0.05, 0.02), (0.01, 0.05))
OVER_HTTP = 20
PLAN: dict[str, Any] = {
    "groups": [
        {"name": "canary", "percent": 5.0, "success": 0.9, "soak_s": 300.0},
        {"name": "quarter", "percent": 25.0, "success": 0.9, "soak_s": 300.0},
        {"name": "rest", "success": 0.9},
    ],
    "abort": {"failed": 0.05, "executed": 100},
    "silent_after_s": 600.0,
    "absent_after_s": 3600.0,
    "retry_s": 120.0,
}


@dataclass(frozen=True)
class Scenario:
    """`share` of the devices have this `fate`. `failed`: the share of failures at which the rollout stops."""

    name: str
    fate: str
    share: float
    failed: float
    ends: str

    @property
    def finishes(self) -> bool:
        return self.ends == "finished"


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("no failures", "good", 0.0, 0.05, "finished"),
    Scenario("1 % fail", "bad", 0.01, 0.05, "finished"),
    Scenario("10 % refuse once", "refuses", 0.10, 0.05, "finished"),
    Scenario("5 % fail, limit 2 %", "bad", 0.05, 0.02, "aborted"),
    Scenario("30 % fail", "bad", 0.30, 0.05, "aborted"),
    Scenario("20 % silent", "silent", 0.20, 0.05, "aborted"),
    Scenario("20 % go back later", "regrets", 0.20, 0.05, "aborted"),
)


@dataclass
class Outcome:
    scenario: str
    devices: int
    reachable: int
    state: str
    reason: str
    canary: int
    max_in_flight: int
    most_in_flight: int
    exposed: int
    confirmed: int
    failed: int
    skipped: int
    simulated_s: int
    questions: int
    wall_s: float
    groups: list[dict[str, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


class Run:
    """One scenario on one store."""

    def __init__(self, engine: Engine, scenario: Scenario, count: int, seed: int) -> None:
        self.engine, self.scenario, self.now_s, self.questions, self.most = engine, scenario, START_S, 0, 0
        key, chance = Ed25519PrivateKey.from_private_bytes(b"r" * 32), random.Random(seed)
        self.registry = MemoryRegistry(key.sign, {TARGET: InMemory(SHA256, 2)})
        names = [f"dev{n:05d}" for n in range(count)]
        self.off = set(chance.sample(names, round(OFF_SHARE * count)))
        fated = set(chance.sample(names, round(scenario.share * count)))
        self.devices = {n: SimulatedDevice(n, scenario.fate if n in fated else "good") for n in names}
        for name in fated:
            self.devices[name].refusals = int(scenario.fate == "refuses")
        self.due = [(START_S + chance.randrange(60), n) for n in names if n not in self.off]
        heapq.heapify(self.due)
        self.over_http = {n for n in names[:OVER_HTTP] if n not in self.off}
        app = FastAPI()
        app.include_router(routes.router)
        app.state.engine, app.state.registry, app.state.now_ns = engine, self.registry, self.now_ns
        app.state.pace = polling.PACE
        app.dependency_overrides[certified] = lambda device: device
        self.client = TestClient(app)

    def now_ns(self) -> int:
        return self.now_s * S_NS

    def ask(self) -> None:
        """All whose time it is."""
        names: list[str] = []
        while self.due and self.due[0][0] <= self.now_s:
            names.append(heapq.heappop(self.due)[1])
        for start in range(0, len(names), BATCH):
            self._ask(names[start : start + BATCH])

    def _ask(self, names: Sequence[str]) -> None:
        told = {n: self.devices[n].status(self.now_ns()).to_json() for n in names}
        batch = [read_status(told[n]) for n in names if n not in self.over_http]
        found = {n: a.to_json() for n, a in polling.answer(self.engine, batch, self.registry, self.now_ns()).items()}
        for n in self.over_http & set(names):
            answer = self.client.post(f"/device/v1/devices/{n}/update", content=told[n])
            answer.raise_for_status()
            found[n] = answer.content
        self.questions += len(names)
        for n in names:
            answer = json.loads(found[n])
            self.devices[n].take(answer["assignment"])
            if not self.devices[n].gone:
                heapq.heappush(self.due, (self.now_s + int(answer["poll_after_s"]), n))

    def tick(self) -> None:
        self.now_s += TICK_S
        clock.advance(self.engine, self.now_ns(), self.registry)
        self.ask()

    def show(self) -> dict[str, Any]:
        told = shown.show(self.engine, "r1", self.now_ns())
        self.most = max(self.most, told["in_flight"])
        return told


def run(engine: Engine, scenario: Scenario, count: int, seed: int) -> Outcome:
    wall_s = time.monotonic()
    sim = Run(engine, scenario, count, seed)
    most = max(60, count // 20)
    _everybody_is_known(sim)
    plan = read_plan({**PLAN, "abort": {**PLAN["abort"], "failed": scenario.failed}, "max_in_flight": most})
    asked = store.Asked("r1", SLOT_SET, Artifact(TARGET, SHA256, 2), plan)
    store.create(engine, asked, "anna", sim.now_ns())
    store.start(engine, "r1", "anna", sim.now_ns())
    started_s, told = sim.now_s, sim.show()
    while told["state"] not in ("finished", "aborted") and sim.now_s - started_s < LONGEST_S:
        sim.tick()
        told = sim.show()
    return _outcome(sim, told, plan.max_in_flight, started_s, time.monotonic() - wall_s)


def _everybody_is_known(sim: Run) -> None:
    with fleet.writing(sim.engine).begin() as connection:
        for name in sim.off:
            fleet.set_tags(connection, name, {"site": "off"}, [], sim.now_ns())
    for _ in range(60 // TICK_S + 1):
        sim.ask()
        sim.now_s += TICK_S


def _outcome(sim: Run, told: Mapping[str, Any], most: int, started_s: int, wall_s: float) -> Outcome:
    groups = [{name: g[name] for name in ("name", "state", "members", "counts")} for g in told["groups"]]
    skipped = sum(g["counts"]["skipped"] for g in groups)
    found = Outcome(
        scenario=sim.scenario.name,
        devices=len(sim.devices),
        reachable=len(sim.devices) - len(sim.off),
        state=told["state"],
        reason=told["reason"],
        canary=sum(groups[0]["counts"].values()),
        max_in_flight=most,
        most_in_flight=sim.most,
        exposed=told["exposed"],
        confirmed=told["confirmed"],
        failed=told["failed"],
        skipped=skipped,
        simulated_s=sim.now_s - started_s,
        questions=sim.questions,
        wall_s=round(wall_s, 1),
        groups=groups,
    )
    found.broken = broken(sim, found)
    return found


def broken(sim: Run, found: Outcome) -> list[str]:
    """What must hold and does not."""
    scenario, here = sim.scenario, [d for n, d in sim.devices.items() if n not in sim.off]
    has = {d.name for d in here if SLOT_SET in d.slots and d.slots[SLOT_SET].confirmed == SHA256}
    twice = [d.name for d in here if any(n > 1 for n in Counter(d.taken).values())]
    faulty = ("bad", "silent", "regrets")
    missing = [d.name for d in here if d.name not in has and d.fate not in faulty]
    rules = (
        (found.state == scenario.ends, f"the rollout is {found.state}, expected {scenario.ends}"),
        (found.most_in_flight <= found.max_in_flight, f"{found.most_in_flight} in flight, above {found.max_in_flight}"),
        (not twice, f"{len(twice)} devices activated it twice"),
        (not scenario.finishes or not missing, f"{len(missing)} devices that can be reached have not confirmed it"),
        (
            not scenario.finishes or found.confirmed == len(has),
            f"{found.confirmed} counted, {len(has)} devices have it",
        ),
        (
            scenario.finishes or found.exposed <= found.canary + found.max_in_flight,
            f"{found.exposed} exposed, above {found.canary} of the canary and {found.max_in_flight} in flight",
        ),
        (not sim.off & {d.name for d in here if d.taken}, "a device that is off got it"),
    )
    return [text for holds, text in rules if not holds]


def table(outcomes: Sequence[Outcome]) -> Table:
    made = Table(title="rollouts")
    for name in ("scenario", "devices", "reachable", "ended", "canary", "exposed", "confirmed", "failed"):
        made.add_column(name, justify="left" if name in ("scenario", "ended") else "right")
    for name in ("in flight", "simulated", "questions", "wall", "holds"):
        made.add_column(name, justify="right")
    for o in outcomes:
        numbers = (o.devices, o.reachable, o.state, o.canary, o.exposed, o.confirmed, o.failed)
        flight = f"{o.most_in_flight} of {o.max_in_flight}"
        times = (f"{o.simulated_s / 60:.0f} min", str(o.questions), f"{o.wall_s:.1f} s")
        made.add_row(o.scenario, *map(str, numbers), flight, *times, "yes" if not o.broken else "; ".join(o.broken))
    return made


def passes(canary: int, fails: float, limit: float) -> float:
    """The chance that an artifact which fails on this share of devices has no more failures in the canary than the limit."""
    most = math.floor(limit * canary + 1e-9)
    return sum(math.comb(canary, k) * fails**k * (1.0 - fails) ** (canary - k) for k in range(most + 1))


def odds() -> Table:
    """What a canary of a size finds, by exact binomial sums."""
    made = Table(title="chance that the canary lets it pass")
    made.add_column("canary", justify="right")
    for fails, limit in ODDS:
        made.add_column(f"{100 * fails:g} % fail, limit {100 * limit:g} %", justify="right")
    for canary in CANARIES:
        made.add_row(str(canary), *(_percent(passes(canary, fails, limit)) for fails, limit in ODDS))
    return made


def _percent(share: float) -> str:
    return "< 0.01 %" if share < 1e-4 else f"{100 * share:.2f} %"


def run_all(count: int, seed: int, chosen: Sequence[Scenario], folder: Path) -> list[Outcome]:
    outcomes = []
    for number, scenario in enumerate(chosen):
        engine = open_store(f"sqlite:///{folder / f'{number}.db'}")
        try:
            outcomes.append(run(engine, scenario, count, seed + number))
        finally:
            engine.dispose()
    return outcomes


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.proofs.rollout", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="TEXT", default="", help="scenarios whose name has this text")
    parser.add_argument("--odds", action="store_true", help="what a canary of a size finds; runs nothing")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    check_bounds(args, {"devices": (100, 1_000_000), "seed": SEED})
    if args.odds:
        Console().print(odds())
        return 0
    chosen = [s for s in SCENARIOS if args.only in s.name]
    with tempfile.TemporaryDirectory(prefix="gudgeon-rollout-") as folder:
        outcomes = run_all(args.devices, args.seed, chosen, Path(folder))
    if args.json:
        print(json.dumps([vars(o) for o in outcomes]))
    else:
        Console(width=180).print(table(outcomes))
    return 1 if any(o.broken for o in outcomes) else 0


if __name__ == "__main__":
    sys.exit(exit_code("rollout", main))
