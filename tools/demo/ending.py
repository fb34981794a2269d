"""How every demo runs and ends: in a folder of its own, which goes unless it is to be kept or something went wrong."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from edge_runtime.errors import GudgeonError
from tools.demo.files import Workplace


def carry_out(
    args: argparse.Namespace,
    console: Console,
    run: Callable[[Workplace], dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
) -> int:
    """`args`: with `keep`, `report` and `json`. The exit code."""
    work = Workplace(args.keep or Path(tempfile.mkdtemp(prefix="gudgeon-demo-")))
    try:
        result = run(work)
    except GudgeonError:
        if not args.keep:
            console.print(f"logs: {work / 'log'}")
        raise
    if not args.keep:
        work.remove()
    show(result)
    if args.report:
        args.report.write_text(json.dumps(result, indent=2) + "\n")
    if args.json:
        print(json.dumps(result))
    return 0
