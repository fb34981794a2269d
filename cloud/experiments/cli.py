"""`gudgeon experiment`: models side by side on cohorts of devices, over the REST API of a running cloud.

    gudgeon experiment create surface-3 --arm old=models/surface/2.tar --arm new=models/surface/3.tar --metric reject
    gudgeon rollout create models/surface/3.tar --slots default --where cohort.surface-3=new
    gudgeon experiment status surface-3                what was found so far; look as often as you like
    gudgeon experiment label surface-3 outcomes.csv    device,part_epoch,part_seq,value: what people found (metric labelled)
    gudgeon experiment stop surface-3                  a last look, then none
    gudgeon experiment list

An arm is NAME=TARGET or NAME=DIGEST, with :SHARE behind it where the shares are not equal; the first is what the others are
compared with. Exit codes: 0 done; 1 refused, or status: devices are missing in one arm, and the comparison means nothing; 2 wrong
use; 5 the cloud does not answer; 8 a file is not as described."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Table

from cloud.client import Client, add_arguments, check_arguments
from cloud.experiments.plan import BETTER, METRICS
from edge_runtime.errors import DataError, UsageError
from edge_runtime.wire.manifest import SHA256

Json = dict[str, Any]
OUTCOMES_AT_ONCE = 5000
COLUMNS = ("device", "part_epoch", "part_seq", "value")


def main(argv: list[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    check_arguments(parser, args)
    client = Client(args)
    try:
        return ACTIONS[args.action](client, args)
    finally:
        client.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gudgeon experiment", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    made = {name: actions.add_parser(name, help=text, description=text) for name, text in HELP.items()}
    for name, found in made.items():
        if name != "list":
            found.add_argument("id", metavar="ID")
        add_arguments(found)
        found.add_argument("--json", action="store_true")
    create = made["create"]
    create.add_argument("--arm", action="append", required=True, metavar="NAME=TARGET[:SHARE]")
    create.add_argument("--metric", choices=tuple(METRICS), default="reject")
    create.add_argument("--better", choices=BETTER, default="low", help="which share is the better one (low)")
    create.add_argument("--effect", type=float, default=0.02, help="difference that is worth finding (0.02)")
    create.add_argument("--alpha", type=float, default=0.05, help="chance to tell apart what is alike (0.05)")
    create.add_argument("--where", action="append", default=[], metavar="FILTER", help="only devices with these tags")
    made["stop"].add_argument("--reason", default="")
    made["label"].add_argument("file", type=Path, metavar="CSV")
    return parser


HELP: Mapping[str, str] = {
    "create": "a new one; devices get the tag of their arm",
    "status": "what was found so far",
    "label": "what people found of parts",
    "stop": "a last look, then none",
    "list": "the experiments, the newest first",
}


def arm_of(text: str) -> Json:
    name, equals, what = text.partition("=")
    if not equals or not what:
        raise UsageError(f"--arm {text!r}: expected NAME=TARGET or NAME=DIGEST, with :SHARE behind it")
    what, _, share = what.partition(":")
    try:
        found: Json = {"name": name, "share": float(share or 1)}
    except ValueError as error:
        raise UsageError(f"--arm {text!r}: the share is no number") from error
    return found | {"digest" if SHA256.fullmatch(what) else "target": what}


def _create(client: Client, args: argparse.Namespace) -> int:
    names = ("id", "metric", "better", "effect", "alpha", "where")
    body = {name: getattr(args, name) for name in names} | {"arms": [arm_of(text) for text in args.arm]}
    return _tell(client.post("/experiments", body), args)


def _status(client: Client, args: argparse.Namespace) -> int:
    found = client.get(f"/experiments/{quote(args.id, safe='')}")
    _tell(found, args)
    return 1 if found["verdict"] == "sample_ratio" else 0


def _stop(client: Client, args: argparse.Namespace) -> int:
    return _tell(client.post(f"/experiments/{quote(args.id, safe='')}/stop", {"reason": args.reason}), args)


def _list(client: Client, args: argparse.Namespace) -> int:
    found = client.get("/experiments")
    if args.json:
        print(json.dumps(found))
        return 0
    table = Table()
    for name in ("id", "state", "metric", "arms", "verdict", "best"):
        table.add_column(name)
    for e in found:
        table.add_row(
            e["id"], e["state"], e["metric"], ", ".join(a["name"] for a in e["arms"]), e["verdict"], e["best"] or ""
        )
    Console().print(table if found else "no experiments")
    return 0


def _label(client: Client, args: argparse.Namespace) -> int:
    rows = _outcomes(args.file)
    kept: Json = {"outcomes": 0}
    for start in range(0, len(rows), OUTCOMES_AT_ONCE):
        part = rows[start : start + OUTCOMES_AT_ONCE]
        kept = client.post(f"/experiments/{quote(args.id, safe='')}/outcomes", {"outcomes": part})
    print(json.dumps(kept) if args.json else f"{kept['outcomes']} outcomes are kept")
    return 0


def _outcomes(path: Path) -> list[Json]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise DataError(f"{path}: expected the columns {','.join(COLUMNS)}")
            return [{"device": r["device"], **{name: int(r[name]) for name in COLUMNS[1:]}} for r in reader]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: {error}; expected a CSV file with whole numbers in its last three columns") from error


def _tell(found: Json, args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps(found))
        return 0
    title = f"{found['id']}: {found['metric']}, {found['better']} is better; {found['state']}"
    table = Table(title=title)
    for name in ("arm", "devices", "parts", "share", "difference", "interval", "p", "crossed"):
        table.add_column(name, justify="left" if name == "arm" else "right")
    for arm in found["arms"]:
        share = f"{100 * arm['share']:.2f} %" if arm["parts"] else "-"
        compared = ("", "", "")
        if arm["difference"] is not None and arm["parts"]:
            interval = f"{100 * arm['low']:+.2f} … {100 * arm['high']:+.2f}"
            compared = (f"{100 * arm['difference']:+.2f}", interval, f"{arm['p']:.3g}")
        devices = f"{arm['devices']} of {arm['assigned']}"
        table.add_row(arm["name"], devices, str(arm["parts"]), share, *compared, str(arm["crossed"]))
    Console().print(table)
    Console().print(_said(found))
    return 0


def _said(found: Json) -> str:
    if found["verdict"] == "sample_ratio":
        p = found["sample_ratio_p"]
        return f"devices are missing in one arm (sample ratio p = {p:.2g}): find out why; the comparison means nothing"
    if found["verdict"] == "different":
        return f"the arms differ; the best of them is {found['best']}"
    return "no difference was found yet"


ACTIONS: Mapping[str, Callable[[Client, argparse.Namespace], int]] = {
    "create": _create, "status": _status, "stop": _stop, "list": _list, "label": _label,
}  # fmt: skip
