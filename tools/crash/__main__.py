"""`python -m tools.crash`: a crash at every operation that outlives the process, of each scenario, under each model.

Exit code 0: at no point was anything lost that had been promised, nothing came twice, nothing sound was called damaged.
"""

from __future__ import annotations

import argparse
import json
import sys

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from edge_runtime.errors import exit_code
from tools.arguments import MANY, SEED, check_bounds
from tools.crash.explore import Plan, Told
from tools.crash.models import MODELS
from tools.crash.run import Outcome, in_memory, run
from tools.crash.table import SCENARIOS, scenario

TABLE_WIDTH = 110


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.crash", description=__doc__)
    parser.add_argument(
        "scenario",
        nargs="*",
        metavar="SCENARIO",
        help="names of --list, or module:attribute; all of the list if none is given",
    )
    parser.add_argument("--list", action="store_true", help="the scenarios and the models")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th image (1: all)")
    parser.add_argument(
        "--within", type=int, default=4, metavar="N", help="so many recoveries are crashed themselves (4)"
    )
    parser.add_argument(
        "--real", type=int, default=12, metavar="N", help="so many points are also died at for real (12)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the model `some`, and of the real deaths")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    args = parser.parse_args(argv)
    for name in args.scenario:
        scenario(name)
    check_bounds(args, {"every": (1, MANY), "within": (0, MANY), "real": (0, MANY), "seed": SEED})
    return args


def show_list(console: Console) -> None:
    for title, rows in (
        ("scenario", {n: scenario(n).text for n in SCENARIOS}),
        ("model", {n: m.text for n, m in MODELS.items()}),
    ):
        table = Table(title, "what happens")
        for name, text in rows.items():
            table.add_row(name, text)
        console.print(table)


def show(outcomes: list[Outcome], console: Console) -> None:
    table = Table("scenario", *MODELS, "in recovery", "real", "images", "failed", box=SIMPLE_HEAD, pad_edge=False)
    for o in outcomes:
        counts = [str(o.found.points[model]) for model in MODELS]
        colour = "[red]" if o.failed else "[green]"
        within, real = str(o.found.within.total()), str(o.real)
        table.add_row(o.scenario, *counts, within, real, str(o.found.images), f"{colour}{o.failed}")
    console.print(table)
    points, failed = sum(o.total for o in outcomes), sum(o.failed for o in outcomes)
    console.print(f"{points} crash points, {failed} failed", style="red" if failed else "green")
    for o in outcomes:
        for line in [*o.found.examples, *o.disagree]:
            console.print(f"{o.scenario}: {line}", style="red", highlight=False, soft_wrap=True)


def _bar(progress: Progress, name: str) -> Told:
    task = progress.add_task(name, total=None)
    return lambda done, of: progress.update(task, completed=done, total=of)


def main(argv: list[str]) -> int:
    args = parse(argv)
    console = Console(stderr=args.json, width=max(TABLE_WIDTH, Console().width))
    if args.list:
        show_list(console)
        return 0
    plan = Plan(every=args.every, within=args.within, seed=args.seed)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images"),
        TimeElapsedColumn(),
    )
    with (
        in_memory() as work,
        Progress(*columns, console=console, transient=True) as progress,
    ):
        outcomes = [
            run(name, work / name, plan, args.real, _bar(progress, name)) for name in args.scenario or SCENARIOS
        ]
    show(outcomes, console)
    if args.json:
        counts = {"points": sum(o.total for o in outcomes), "failed": sum(o.failed for o in outcomes)}
        print(json.dumps({**counts, "scenarios": [o.as_json() for o in outcomes]}))
    return 0 if all(o.passed for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(exit_code("crash", lambda: main(sys.argv[1:])))
