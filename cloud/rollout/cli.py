"""`gudgeon rollout`: give an artifact to many devices, group by group, over the REST API of a running cloud.

    gudgeon rollout create models/surface/2.tar --slots default --canary 5% --soak 600 --max-in-flight 200
    gudgeon rollout create TARGET --slots SET --plan plan.toml      every key of a plan (docs/reference/rollouts.md)
    gudgeon rollout list                                            the newest first
    gudgeon rollout status ID | watch ID | devices ID               progress; until its end; device by device
    gudgeon rollout start|approve|pause|resume|abort ID             may be repeated; approve: another person than the maker
    gudgeon rollout tag DEVICE NAME=VALUE … --unset NAME --zone Z   what filters see, and the zone of maintenance windows
    gudgeon rollout fleet [--where line=7]                          what devices have installed, run and have confirmed

Exit codes: 0 done; 1 refused, or the rollout was aborted (status, watch); 2 wrong use; 3 a plan that cannot be read; 5 the cloud
does not answer, or watch saw no end in its time."""

from __future__ import annotations

import argparse
import json
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cloud.client import Client, add_arguments, check_arguments
from edge_runtime.errors import ConfigError, EndpointError, UsageError

LOOK_EVERY_S = 1.0
PAGE = 1000
ENDED = ("finished", "aborted")
Json = dict[str, Any]
COLUMNS = ("group", "state", "", "confirmed", "needed", "in flight", "failed", "silent", "retry", "waiting", "absent")
#: where the width of no terminal is known, such as in a pipe: nothing is cut
WIDE = 200
STYLES: Mapping[str, str] = {"finished": "green", "aborted": "red", "aborting": "red", "paused": "yellow"}


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
        prog="gudgeon rollout", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _create_arguments(_action(actions, "create", "a new rollout"))
    _action(actions, "list", "the rollouts, the newest first")
    for name, text in STEERING.items():
        found = _action(actions, name, text)
        found.add_argument("id", metavar="ID")
        if name in ("pause", "abort"):
            found.add_argument("--reason", default="", help="is kept and shown")
    for name, text in (("status", "its progress now"), ("watch", "its progress until the end")):
        found = _action(actions, name, text)
        found.add_argument("id", metavar="ID")
        if name == "watch":
            found.add_argument("--timeout", type=float, default=86_400.0, metavar="S", help="at most so long (a day)")
    devices = _action(actions, "devices", "its devices")
    devices.add_argument("id", metavar="ID")
    devices.add_argument("--state", help="such as failed, silent, waiting")
    tag = _action(actions, "tag", "tags and time zone of a device")
    tag.add_argument("device", metavar="DEVICE")
    tag.add_argument("tags", nargs="*", metavar="NAME=VALUE")
    tag.add_argument("--unset", action="append", default=[], metavar="NAME")
    tag.add_argument("--zone", help="of its maintenance windows, such as Europe/Berlin; '' for its own local time")
    fleet = _action(actions, "fleet", "what devices have installed, run and have confirmed")
    fleet.add_argument("--where", action="append", default=[], metavar="FILTER", help="line=7|8, site!=lab, gpu, !gpu")
    return parser


def _action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    return parser


def _create_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="published in the registry, such as models/surface/2.tar")
    parser.add_argument("--slots", required=True, metavar="SET", help="slot set that it is for, such as default")
    parser.add_argument("--id", default="", help="by default one is made up")
    parser.add_argument("--plan", type=Path, metavar="F", help="TOML or JSON; what follows changes keys of it")
    parser.add_argument("--canary", metavar="N|P%", help="the first group, then all: a number of devices, or a share")
    parser.add_argument("--soak", type=float, metavar="S", help="how long the first group is watched")
    parser.add_argument("--where", action="append", metavar="FILTER", help="only devices with these tags (repeated)")
    parser.add_argument("--max-in-flight", type=int, metavar="N")
    parser.add_argument("--abort-failed", metavar="P%", help="stop when more than this share failed")
    parser.add_argument("--abort-executed", type=int, metavar="N", help="… of at least so many that came to an end")
    parser.add_argument("--abort-count", type=int, metavar="N", help="stop when so many failed")
    parser.add_argument("--window", metavar="HH:MM-HH:MM", help="maintenance window, in each device's local time")
    parser.add_argument("--zone", help="time zone of the window for devices that have none of their own")
    parser.add_argument("--on-abort", choices=("leave", "revert"))
    parser.add_argument("--approval", action="store_true", default=None, help="another person must approve")
    parser.add_argument("--replaces", default="", metavar="ID", help="abort this one when the new one starts")
    parser.add_argument("--draft", action="store_true", help="do not start it yet")


# ── create ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _create(client: Client, args: argparse.Namespace) -> int:
    body = {"id": args.id, "slot_set": args.slots, "target": args.target, "plan": plan_of(args)}
    found = client.post("/rollouts", {**body, "replaces": args.replaces, "start": not args.draft})
    return _tell(found, args)


def plan_of(args: argparse.Namespace) -> Json:
    """The plan of the file with the keys that the command line names."""
    plan = _read_plan(args.plan) if args.plan else {}
    for name in ("where", "max_in_flight", "window", "zone", "on_abort", "approval"):
        if getattr(args, name) is not None:
            plan[name] = getattr(args, name)
    limits = {"failed": _share(args.abort_failed), "executed": args.abort_executed, "count": args.abort_count}
    given = {name: value for name, value in limits.items() if value is not None}
    if given:
        plan["abort"] = {**plan.get("abort", {}), **given}
    if args.canary or args.soak is not None:
        if "groups" in plan:
            raise UsageError("--canary and --soak make the groups; leave them out where the plan has groups")
        plan["groups"] = [_canary(args.canary or "5%", args.soak or 0.0), {"name": "all"}]
    return plan


def _canary(text: str, soak_s: float) -> Json:
    if text.endswith("%"):
        return {"name": "canary", "percent": 100.0 * (_share(text) or 0.0), "soak_s": soak_s}
    if not text.isdecimal():
        raise UsageError(f"--canary {text!r}: expected a number of devices, or a share such as 5%")
    return {"name": "canary", "count": int(text), "soak_s": soak_s}


def _share(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text.removesuffix("%")) / 100.0
    except ValueError as error:
        raise UsageError(f"{text!r}: expected a share such as 5%") from error


def _read_plan(path: Path) -> Json:
    try:
        data = path.read_bytes()
        found = json.loads(data) if path.suffix == ".json" else tomllib.loads(data.decode())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: the plan cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected a table of keys")
    return found


# ── steer and look ──────────────────────────────────────────────────────────────────────────────────────────────────

STEERING: Mapping[str, str] = {
    "start": "a draft starts, or waits for approval",
    "approve": "by another person than the one who made it",
    "pause": "nothing is begun, what is under way is staged and waits",
    "resume": "it goes on",
    "abort": "for good",
}


def _steer(client: Client, args: argparse.Namespace) -> int:
    body = {"reason": args.reason} if args.action in ("pause", "abort") else {}
    return _tell(client.post(f"/rollouts/{quote(args.id, safe='')}/{args.action}", body), args)


def _list(client: Client, args: argparse.Namespace) -> int:
    found = client.get("/rollouts", limit=PAGE)
    if args.json:
        print(json.dumps(found))
        return 0
    table = Table()
    for name in ("id", "state", "slot set", "target", "exposed", "confirmed", "failed", "since"):
        table.add_column(name)
    for r in found:
        counts = (str(r["exposed"]), str(r["confirmed"]), str(r["failed"]))
        table.add_row(r["id"], _state(r), r["slot_set"], r["target"], *counts, _time(r["changed_ns"]))
    _console().print(table if found else "no rollouts")
    return 0


def _status(client: Client, args: argparse.Namespace) -> int:
    found = client.get(f"/rollouts/{quote(args.id, safe='')}")
    _tell(found, args)
    return 1 if found["state"] in ("aborted", "aborting") else 0


def _tell(found: Json, args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps(found))
    else:
        _console().print(picture(found))
    return 0


def _watch(client: Client, args: argparse.Namespace) -> int:
    end_s = time.monotonic() + args.timeout
    path = f"/rollouts/{quote(args.id, safe='')}"
    found = client.get(path)
    with _progress(_console(args.json), quiet=args.json) as progress:
        progress(found)
        while found["state"] not in ENDED and time.monotonic() < end_s:
            time.sleep(LOOK_EVERY_S)
            found = client.get(path)
            progress(found)
    if args.json:
        print(json.dumps(found))
    if found["state"] not in ENDED:
        raise EndpointError(f"rollout {args.id} is {found['state']} after {args.timeout:g} s; it goes on")
    return 0 if found["state"] == "finished" else 1


@contextmanager
def _progress(console: Console, quiet: bool) -> Iterator[Callable[[Json], None]]:
    """One picture that changes on a terminal; elsewhere (a pipe, a log) each change below the one before, unless `quiet`."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=quiet) as live:
            yield lambda found: live.update(picture(found))
        return
    last: Json = {}

    def changed(found: Json) -> None:
        nonlocal last
        if not quiet and found != last:
            console.print(picture(found))
        last = found

    yield changed


def picture(found: Json) -> Group:
    """What a terminal shows of a rollout."""
    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("group", "state", "") else "right", no_wrap=True)
    for g in found["groups"]:
        n = g["counts"]
        bar = ProgressBar(total=max(1, g["members"]), completed=n["confirmed"], width=12)
        ended = (n["failed"], n["silent"], n["retry"], n["waiting"], g["absent"])
        numbers = (n["confirmed"], g["needed"], n["offered"] + n["working"], *ended)
        table.add_row(g["name"], g["state"], bar, *map(str, numbers))
    head = Text.assemble((found["id"], "bold"), "  ", _state(found), f"  {found['target']} → {found['slot_set']}")
    why = [Text(found["reason"])] if found["reason"] else []
    return Group(head, *why, table)


def _console(stderr: bool = False) -> Console:
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=WIDE)


def _state(found: Json) -> Text:
    return Text(found["state"], style=STYLES.get(found["state"], ""))


def _time(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# ── devices ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _devices(client: Client, args: argparse.Namespace) -> int:
    more = {"state": args.state} if args.state else {}
    items = _pages(client, f"/rollouts/{quote(args.id, safe='')}/devices", **more)
    if args.json:
        print(json.dumps(items))
        return 0
    for d in items:
        print(f"{d['device']:<32}  group {d['group']}  {d['state']:<10} tries {d['tries']}  {d['reason']}".rstrip())
    return 0


def _tag(client: Client, args: argparse.Namespace) -> int:
    tags = {}
    for text in args.tags:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{text!r}: expected NAME=VALUE")
        tags[name] = value
    body = {"set": tags, "unset": args.unset, "zone": args.zone}
    found = client.post(f"/fleet/devices/{quote(args.device, safe='')}/tags", body)
    print(json.dumps(found) if args.json else _line(found))
    return 0


def _fleet(client: Client, args: argparse.Namespace) -> int:
    items = _pages(client, "/fleet/devices", where=args.where)
    print(json.dumps(items) if args.json else "\n".join(map(_line, items)) or "no devices")
    return 0


def _pages(client: Client, path: str, **params: Any) -> list[Json]:
    items: list[Json] = []
    after: str | None = ""
    while after is not None:
        page = client.get(path, after=after, limit=PAGE, **params)
        items, after = items + page["items"], page["next_after"]
    return items


def _line(found: Json) -> str:
    slots = [
        f"{name}: {s['state']} running {s['running'][:12] or '-'} confirmed {s['confirmed'][:12] or '-'}"
        for name, s in sorted(found["slots"].items())
    ]
    tags = " ".join(f"{name}={value}" for name, value in sorted(found["tags"].items()))
    told = _time(found["told_ns"]) if found["told_ns"] else "never asked"
    return "  ".join(filter(None, (f"{found['device']:<24}", told, found["hardware"], tags, found["zone"], *slots)))


ACTIONS: Mapping[str, Callable[[Client, argparse.Namespace], int]] = {
    "create": _create,
    "list": _list,
    "status": _status,
    "watch": _watch,
    "devices": _devices,
    "tag": _tag,
    "fleet": _fleet,
    **dict.fromkeys(STEERING, _steer),
}
