"""`make kills`: kill -9 at random moments, each process started again at once, and the producer's ledger against the cloud.

Exit code 0: nothing that `durable=True` had acknowledged is missing, nothing had a second effect, no link of the hash chain
is broken, the cloud found nothing wrong, and each process was killed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from edge_runtime.errors import GudgeonError, exit_code
from tools.chaos import ledger
from tools.chaos.cloud_rows import read_cloud
from tools.chaos.pair import DEVICE
from tools.kills import arguments
from tools.kills.links import Links, follow
from tools.kills.rig import Rig

KILLS = 2000
EVERY_S = 0.35
RECORDS_PER_S = 60
BULK = 1
BEGIN_S = 60.0
DRAIN_S = 600.0
TOLD_S = 1.0


@dataclass(frozen=True)
class Result:
    """`ends`: exit codes of processes that ended by themselves, by name: there should be none."""

    seed: int
    broker: str
    kills: dict[str, int]
    ends: dict[str, list[int]]
    ledger: ledger.Ledger
    links: Links
    settled: bool
    took_s: float

    @property
    def passed(self) -> bool:
        told = self.ledger
        wrong = told.lost + told.bulk_lost + told.double + told.disordered + told.findings
        wrong += self.links.broken + self.links.gaps
        return not wrong and self.settled and all(self.kills.values())

    def as_json(self) -> dict[str, Any]:
        head = {"proof": "kills", "passed": self.passed, "seed": self.seed, "broker": self.broker, "kills": self.kills}
        counts = ledger.as_json(self.ledger)
        links = {"records": self.links.records, "broken_links": self.links.broken, "gaps": self.links.gaps}
        rest = {"settled": self.settled, "ended_by_themselves": self.ends, "took_s": round(self.took_s, 1)}
        return {**head, "killed": sum(self.kills.values()), **counts, **links, **rest}


def run(folder: Path, kills: int, every_s: float, seed: int, told: Callable[[int, int], None]) -> Result:
    """`told`: kills so far, records in the cloud."""
    dice, began_s = Random(seed), time.monotonic()
    with Rig(folder, ("--per-s", str(RECORDS_PER_S), "--bulk", str(BULK))) as rig:
        _wait("the first records in the cloud", BEGIN_S, lambda: rig.arrived() > 0)
        names = list(rig.victims)
        told_s = 0.0
        for done in range(kills):
            time.sleep(dice.uniform(0, 2 * every_s))
            rig.victims[dice.choice(names)].kill()
            if time.monotonic() - told_s > TOLD_S:
                told_s = time.monotonic()
                told(done + 1, rig.arrived())
        rig.victims["producer"].stop()
        produced, refused = rig.produced()
        top = ledger.outstanding(produced)
        settled = _until(DRAIN_S, lambda: rig.settled(top))
        deaths = dict(rig.deaths())
        ends = {name: victim.ends for name, victim in rig.victims.items() if victim.ends}
    account = ledger.settle(produced, refused, read_cloud(rig.database, DEVICE))
    links = follow(rig.database, DEVICE)
    broker = "embedded" if rig.embedded else "Mosquitto"
    return Result(seed, broker, deaths, ends, account, links, settled, time.monotonic() - began_s)


def _until(seconds: float, true: Callable[[], Any]) -> bool:
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        if true():
            return True
        time.sleep(TOLD_S / 4)
    return False


def _wait(what: str, seconds: float, true: Callable[[], bool]) -> None:
    if not _until(seconds, true):
        raise GudgeonError(f"{what}: none within {seconds:.0f} s; run with --keep DIR and read DIR/log")


def show(r: Result, console: Console) -> None:
    table = Table("killed", "times", title=f"kill -9, {r.broker}, seed {r.seed}")
    for name, times in r.kills.items():
        table.add_row(name, str(times))
    console.print(table)
    told, links = r.ledger, r.links
    colour = "green" if r.passed else "red"
    console.print(
        f"{sum(r.kills.values())} kills in {r.took_s:.0f} s: {told.produced} records produced ({told.acknowledged} durable), "
        f"{told.delivered} delivered, {told.lost} lost, {told.bulk_lost} bulk lost, {told.double} double",
        f"{links.records} links followed, {links.broken} broken, {links.gaps} gaps; {told.findings} findings",
        sep="\n",
        style=colour,
    )
    for name, codes in r.ends.items():
        console.print(f"{name} ended by itself {len(codes)} times, exit codes {sorted(set(codes))}", style="yellow")
    for line in r.ledger.examples:
        console.print(line, style="red", highlight=False)


def main(argv: list[str]) -> int:
    args = arguments.read(argv, "python -m tools.kills", __doc__, 1, KILLS, EVERY_S)
    console = Console(stderr=args.json)
    columns = (
        TextColumn("kills"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with tempfile.TemporaryDirectory(prefix="gudgeon-kills-") as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=args.kills)

            def told(done: int, rows: int) -> None:
                progress.update(task, completed=done, description=f"{rows} records in the cloud")

            result = run(folder, args.kills, args.every_s, args.seed, told)
    show(result, console)
    if args.json:
        print(json.dumps(result.as_json()))
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(exit_code("kills", lambda: main(sys.argv[1:])))
