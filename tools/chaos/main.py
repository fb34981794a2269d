"""`gudgeon chaos SCENARIO|quick|all`: a real device and cloud pair goes through a fault, and the ledger says what arrived.

Exit code 0: nothing acknowledged was lost, nothing had two effects, the pair recovered, and the fault really happened.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from edge_runtime.errors import GudgeonError, ResourceError, UsageError
from tools.arguments import check_keep
from tools.chaos.run import Result, run
from tools.chaos.scenarios import QUICK, SCENARIOS, missing, without_namespaces
from tools.chaos.sweep import sweep

WIDE = 120  # columns of what is not a terminal
GROUPS = {"quick": QUICK, "all": tuple(SCENARIOS)}
#: field of the ledger → heading
COLUMNS = {
    "produced": "made", "acknowledged": "durable", "delivered": "arrived", "lost": "lost", "double": "double",
    "shed": "shed", "refused": "refused",
}  # fmt: skip


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gudgeon chaos", description=__doc__)
    parser.add_argument("scenario", nargs="?", metavar="SCENARIO", help="a name of --list, or quick, or all")
    parser.add_argument("--list", action="store_true", help="the scenarios, and what they lack on this machine")
    parser.add_argument("--seconds", type=float, metavar="N", help="how long the fault lasts")
    parser.add_argument("--proxy-only", action="store_true", help="no namespaces, even where they may be made")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs, ledger and databases in DIR/SCENARIO")
    parser.add_argument("--json", action="store_true", help="print the result as JSON (a list for quick and all)")
    parser.add_argument("--cleanup", action="store_true", help="only remove what killed runs have left behind")
    args = parser.parse_args(argv)
    if args.list or args.cleanup:
        return args
    if args.scenario is None:
        raise UsageError(f"name a scenario: {', '.join([*SCENARIOS, *GROUPS])}")
    if args.scenario not in SCENARIOS and args.scenario not in GROUPS:
        raise UsageError(f"unknown scenario {args.scenario!r}: expected one of {', '.join([*SCENARIOS, *GROUPS])}")
    if args.seconds is not None and not 1 <= args.seconds <= 3600:
        raise UsageError(f"--seconds {args.seconds:g}: expected 1 to 3600")
    check_keep(args.keep)
    return args


def show_list(console: Console) -> None:
    table = Table("scenario", "what happens", "lasts", "quick", "on this machine")
    for name, s in SCENARIOS.items():
        table.add_row(
            name, s.text, f"{s.seconds:g} s", "yes" if name in QUICK else "", "; ".join(missing(name)) or "ready"
        )
    console.print(table)
    if reason := without_namespaces():
        console.print(f"network faults: by the proxy alone ({reason}); with root, iproute2 and nftables by the kernel")


def play(name: str, args: argparse.Namespace, console: Console) -> Result:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[told]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=None, told="starting")
        return run(name, args.seconds, args.keep, lambda text: progress.update(task, told=text), args.proxy_only)


def show(results: list[Result], console: Console) -> None:
    title = "the producer's ledger against the cloud's database"
    table = Table("scenario", *COLUMNS.values(), "back after", "", title=title, box=SIMPLE_HEAD, pad_edge=False)
    for r in results:
        counts = [str(getattr(r.ledger, c)) for c in COLUMNS]
        recovered = "never" if r.recovered_s is None else f"{r.recovered_s:.1f} s"
        table.add_row(r.scenario, *counts, recovered, "[green]passed" if r.passed else "[red]FAILED")
    console.print(table)
    for r in results:
        facts = ", ".join(f"{k} {v}" for k, v in r.evidence.facts.items())
        console.print(f"{r.scenario}: {r.evidence.by} ({facts}); {r.facts['mode']}", style="dim", highlight=False)
        for line in r.ledger.examples:
            console.print(f"  {line}", style="red")
        if not r.evidence.happened:
            console.print("  the fault did not happen: this run has shown nothing", style="red")
        if r.ledger.bulk_lost:
            console.print(f"  {r.ledger.bulk_lost} records that were not durable are gone", style="yellow")


def main(argv: list[str]) -> int:
    args = parse(argv)
    console = Console(stderr=args.json)
    if not console.is_terminal:
        console = Console(stderr=args.json, width=WIDE)
    if args.list:
        show_list(console)
        return 0
    for line in sweep():
        console.print(f"removed {line}", style="dim")
    if args.cleanup:
        return 0
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        results, skipped, broken = _all(args, console)
    finally:
        signal.signal(signal.SIGTERM, before)
    if results:
        show(results, console)
    for name, reason in skipped.items():
        console.print(f"{name}: not run: {reason}", style="yellow", highlight=False)
    for name, reason in broken.items():
        console.print(f"{name}: broke off: {reason}", style="red", highlight=False)
    if args.json:
        printed: list[dict[str, Any]] = [r.as_json() for r in results]
        print(json.dumps(printed if args.scenario in GROUPS else printed[0]))
    return 0 if results and not broken and all(r.passed for r in results) else 1


def _all(args: argparse.Namespace, console: Console) -> tuple[list[Result], dict[str, str], dict[str, str]]:
    """The results, and why the others of a group have none: the machine lacks something, or the run broke off."""
    if args.scenario in SCENARIOS:
        return [play(args.scenario, args, console)], {}, {}
    results, skipped, broken = [], {}, {}
    for name in GROUPS[args.scenario]:
        try:
            results.append(play(name, args, console))
        except ResourceError as error:
            skipped[name] = str(error)
        except GudgeonError as error:
            broken[name] = str(error)
    return results, skipped, broken


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
