"""`gudgeon fleet`: many emulated devices, each the production uplink over an outbox of its own, through the restart of their
broker.

Exit code 0: connections stayed under the limit (devices ÷ --spread-s in any second), all came back, and every record is in
the cloud exactly once.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tools.arguments import check_bounds, check_keep
from tools.fleet.run import Wanted, run

#: option → (least, most)
BOUNDS = {
    "devices": (1, 20_000), "records": (1, 10_000), "spread_s": (1, 3600), "down_s": (0.5, 3600), "steady_s": (0, 3600),
    "workers": (1, 64),
}  # fmt: skip


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gudgeon fleet", description=__doc__)
    parser.add_argument("--devices", type=int, default=1000, metavar="N", help="how many (1000)")
    parser.add_argument("--records", type=int, default=20, metavar="N", help="of each device, all along the run (20)")
    parser.add_argument("--spread-s", type=float, default=30.0, metavar="S", help="reconnect_spread_s (30)")
    parser.add_argument("--down-s", type=float, default=5.0, metavar="S", help="how long the broker is away (5)")
    parser.add_argument("--steady-s", type=float, default=10.0, metavar="S", help="all connected before that (10)")
    parser.add_argument("--workers", type=int, default=8, metavar="N", help="processes that they share (8)")
    parser.add_argument(
        "--embedded", action="store_true", help="the cloud's own broker, even where Mosquitto is installed"
    )
    parser.add_argument("--folder", type=Path, help="where the outboxes lie (in memory where there is room)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs, ledgers and the cloud's database in DIR")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    args = parser.parse_args(argv)
    check_bounds(args, BOUNDS)
    if args.workers > args.devices:
        args.workers = args.devices
    check_keep(args.keep)
    return args


def show(found: dict[str, Any], console: Console) -> None:
    for name, value in found.items():
        if name == "peak_rss_bytes":
            value = ", ".join(f"{process} {size / 2**20:.0f} MiB" for process, size in value.items())
        if name != "examples":
            console.print(f"{name:>30}  {value}", highlight=False)
    for line in found["examples"]:
        console.print(f"  {line}", style="red", highlight=False)


def main(argv: list[str]) -> int:
    args = parse(argv)
    wanted = Wanted(
        args.devices, args.records, args.spread_s, args.down_s, args.steady_s, args.workers, args.embedded
    )  # fmt: skip
    console = Console(stderr=args.json)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("starting", total=1.0)

            def told(what: str, share: float) -> None:
                progress.update(task, description=what, completed=share)

            found = run(wanted, args.folder, args.keep, told)
    finally:
        signal.signal(signal.SIGTERM, before)
    if args.json:
        print(json.dumps(found))
    else:
        show(found, console)
    return 0 if found["passed"] else 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
