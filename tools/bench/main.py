"""`gudgeon bench loop|infer|outbox|uplink|ingest|pdm|swap|delta`: a table for people, `--json` for programs. Ratios to a
floor measured in the same run: absolute times on a busy machine tell little."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edge_runtime.doctor import default_bundle
from edge_runtime.errors import BundleError, UsageError
from edge_runtime.tasks import ENVIRONMENT
from tools.arguments import MANY, check_bounds

BOUNDS = {
    "count": (1, MANY), "flush_ms": (0, 1000), "rows": (1, MANY), "rounds": (1, 1000), "swaps": (1, 1000),
    "parts_per_s": (0.1, 100), "steps": (1, MANY),
}  # fmt: skip


def show(result: dict[str, Any]) -> None:
    table = Table(title=f"{result['bench']} (floor: {result['floor']})")
    for column in ("", "p50 µs", "p90 µs", "p99 µs", "max µs", "p50 ÷ floor"):
        table.add_column(column, justify="left" if not column else "right")
    for r in result["rows"]:
        us = r["us"]
        table.add_row(r["name"], *(f"{us[k]:.1f}" for k in ("p50", "p90", "p99", "max")), f"{r['ratio_p50']:.3f}")
    console = Console()
    console.print(table)
    for refused in result.get("refused", []):
        console.print(f"refused {refused['name']}: {refused['reason']}")
    if producers := result.get("producers"):
        each = ", ".join(f"{name} {per_s:.0f}/s" for name, per_s in producers["per_s"].items())
        console.print(f"{producers['threads']} durable producers: {each}; ratio {producers['ratio']}")
    if result["bench"] == "uplink":
        from tools.bench import uplink

        console.print(*uplink.tables(result), sep="\n")
    if memory := result.get("memory"):
        mib = {k: memory[k] / 2**20 for k in ("control_rss_bytes", "floor_rss_bytes")}
        console.print(
            f"control {mib['control_rss_bytes']:.1f} MiB RSS, floor {mib['floor_rss_bytes']:.1f} MiB "
            f"(NumPy + engine + model): {memory['ratio']:.3f}"
        )


def _ingest(args: argparse.Namespace) -> int:
    from tools.bench import ingest

    if args.rows < ingest.DEVICES * ingest.BATCH or args.rounds < 1:
        raise UsageError(f"expected --rows of at least {ingest.DEVICES * ingest.BATCH} and --rounds of at least 1")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as a user of its own
        result = ingest.run(Path(folder), args.rows, args.rounds, quiet=args.json)
    if args.json:
        print(json.dumps(result))
    else:
        ingest.show(result)
    return 0


def _pdm(args: argparse.Namespace) -> int:
    os.environ.update(ENVIRONMENT)
    from tools.bench import pdm

    with tempfile.TemporaryDirectory() as folder:
        result = pdm.run(Path(folder), args.count)
    print(json.dumps(result) if args.json else pdm.table(result))
    return 0


def _swap(args: argparse.Namespace) -> int:
    from tools.bench import swap

    chosen = {"all": swap.FAULTS, "none": ()}.get(args.faults, tuple(args.faults.split(",")))
    if unknown := [name for name in chosen if name not in swap.FAULTS]:
        raise UsageError(f"--faults: {unknown[0]!r} is none of {', '.join(swap.FAULTS)}, all, none")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        return swap.main(Path(folder), args.bundle, args.swaps, args.parts_per_s, chosen, args.json)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gudgeon bench", description=__doc__)
    parser.add_argument("what", choices=("loop", "infer", "outbox", "uplink", "ingest", "pdm", "swap", "delta"))
    parser.add_argument("--bundle", type=Path, default=default_bundle(), metavar="BUNDLE_DIR")
    parser.add_argument(
        "--count", type=int, default=300, help="measurements of each kind (300); uplink: records a round ÷ 50"
    )
    parser.add_argument(
        "--engine", choices=("auto", "onnxruntime", "litert"), default="auto", help="loop: on which engine"
    )
    parser.add_argument("--folder", type=Path, help="outbox, uplink, ingest: on which disk")
    parser.add_argument(
        "--flush-ms", type=float, default=0.0, help="outbox: as on a disk whose every flush takes so much longer (0)"
    )
    parser.add_argument("--rows", type=int, default=40_000, help="ingest: rows of each round (40000)")
    parser.add_argument("--rounds", type=int, default=5, help="ingest: rounds (5)")
    parser.add_argument("--swaps", type=int, default=5, help="swap: good models that follow each other (5)")
    parser.add_argument("--parts-per-s", type=float, default=20.0, help="swap: pace of the line (20)")
    parser.add_argument("--faults", default="all", help="swap: which bad models, with commas; all or none")
    parser.add_argument("--steps", type=int, default=60, help="delta: steps of fine-tuning (60)")
    parser.add_argument("--no-memory", action="store_true", help="loop: leave out the comparison of memory")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    check_bounds(args, BOUNDS)
    if args.what == "ingest":
        return _ingest(args)
    if args.what == "pdm":
        return _pdm(args)
    if args.bundle is None and args.what in ("loop", "infer", "swap", "delta"):
        raise BundleError("no bundle: name one with --bundle BUNDLE_DIR")
    if args.what == "delta":
        from tools.bench import delta

        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            return delta.main(Path(name), args.bundle, args.steps, args.json)
    os.environ.update(ENVIRONMENT)  # as `control` is started; it counts only before NumPy is imported
    if args.what == "swap":
        return _swap(args)
    result: dict[str, Any]
    if args.what == "outbox":
        from tools.bench import outbox

        slower = args.flush_ms > 0
        result = (
            outbox.run_slower(args.folder, args.count, args.flush_ms) if slower else outbox.run(args.folder, args.count)
        )
    elif args.what == "uplink":
        from tools.bench import uplink

        result = uplink.run(args.folder, args.count)
    elif args.what == "infer":
        from tools.bench import infer

        result = infer.run(args.bundle, args.count)
    else:
        from tools.bench import loop

        result = loop.run(args.bundle, args.count, args.engine, not args.no_memory)
    if args.json:
        print(json.dumps(result))
    else:
        show(result)
    return 0
