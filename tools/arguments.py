"""What the command lines of the tools have in common, checked before any work is done."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

from edge_runtime.durable import disk_errors
from edge_runtime.errors import UsageError

MANY = 10**9
PORT = (0, 65535)
SEED = (0, MANY)
Bounds = Mapping[str, tuple[float, float]]


def check_bounds(args: argparse.Namespace, bounds: Bounds) -> None:
    """UsageError for the first number, by its name in `args`, that is outside of its bounds (both included)."""
    for name, (least, most) in bounds.items():
        value = getattr(args, name)
        if not least <= value <= most:
            expected = f"{least:g} or more" if most in (MANY, math.inf) else f"{least:g} to {most:g}"
            raise UsageError(f"--{name.replace('_', '-')} {value:g}: expected {expected}")


def check_keep(folder: Path | None) -> None:
    """`--keep DIR`: make it. UsageError where something is in it; ResourceError where it cannot be made."""
    if folder is None:
        return
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"--keep {folder}: the folder is not empty; choose a new one")
