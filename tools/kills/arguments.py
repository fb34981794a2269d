"""The command line that both runs of random kills share."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_runtime.errors import UsageError
from tools.arguments import MANY, SEED, check_bounds


def read(argv: list[str], prog: str, text: str | None, least: int, kills: int, every_s: float) -> argparse.Namespace:
    """`least`, `kills`: the fewest kills that may be asked for, and how many without a word. `every_s`: the mean time between."""
    parser = argparse.ArgumentParser(prog=prog, description=text)
    parser.add_argument("--kills", type=int, default=kills, help=f"how many ({kills})")
    parser.add_argument("--every-s", type=float, default=every_s, help=f"mean time to the next one ({every_s})")
    parser.add_argument("--seed", type=int, default=1, help="of moments and victims")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="run in this new folder and keep it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    args = parser.parse_args(argv)
    check_bounds(args, {"kills": (least, MANY), "every_s": (0.001, 60), "seed": SEED})
    if args.keep and args.keep.exists():
        raise UsageError(f"--keep {args.keep}: is there already; name a new folder")
    return args
