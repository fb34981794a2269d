"""`gudgeon alarms`: the alarms of this device, and what an operator does about them.

    gudgeon alarms --config device.toml                          every alarm that is not normal
    gudgeon alarms --config device.toml ack pump-1/anomaly
    gudgeon alarms --config device.toml shelve pump-1/anomaly --for 2h
    gudgeon alarms --config device.toml unshelve pump-1/anomaly

The list is read from the device's state, whether it runs or not; the rest is asked of the running device and is on its disk
when the command returns.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_runtime import config
from edge_runtime.boot import boot_id
from edge_runtime.clock import SystemClock
from edge_runtime.decide import alarm_file
from edge_runtime.decide.alarm_book import ACTIONS, Saved, shown
from edge_runtime.decide.alarm_socket import SOCKET_PATH, send
from edge_runtime.decide.alarm_states import AlarmState
from edge_runtime.errors import GudgeonError, UsageError
from edge_runtime.who import user_name

DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|min|h|d)")
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


def duration_s(text: str) -> float:
    """``90s``, ``20min``, ``2h``, ``1d`` in seconds."""
    found = DURATION.fullmatch(text)
    if not found:
        raise UsageError(f"--for {text!r}: expected a number with s, min, h or d, as 2h")
    return float(found[1]) * SECONDS[found[2]]


def rows(saved: Saved, everything: bool, now_ns: int) -> list[dict[str, Any]]:
    """What the list shows, most severe first."""
    found = []
    for alarm in saved.alarms:
        if alarm.state is AlarmState.NORMAL and not everything:
            continue
        asset, _, source = alarm.id.partition("/")
        row = {**shown(asset, source, alarm), **saved.detail.get(alarm.id, {})}
        if alarm.state is AlarmState.SHELVED:
            row["shelf_left_s"] = round(max(0, alarm.shelf_until_ns - now_ns) / 1e9)
        found.append((not alarm.active, -alarm.severity, alarm.id, row))
    return [row for *_, row in sorted(found, key=lambda f: f[:3])]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gudgeon alarms", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", nargs="?", choices=["list", *ACTIONS], default="list")
    parser.add_argument("alarm", nargs="?", default="", metavar="ID", help="as the list shows it: ASSET/SOURCE")
    parser.add_argument("--config", type=Path, required=True, metavar="device.toml")
    parser.add_argument("--for", dest="for_text", default="1h", metavar="TIME", help="how long to shelve, as 2h")
    parser.add_argument("--by", default=user_name(), help="who asks, as the record tells it (default: you)")
    parser.add_argument("--all", action="store_true", help="list also what is normal")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    state_dir = config.load_device(args.config).device.state_dir
    if args.action != "list":
        return act(args, state_dir)
    found = read(state_dir, args.all)
    if args.json:
        print(json.dumps({"alarms": found}))
    elif not found:
        print("no alarms")
    for row in [] if args.json else found:
        at = datetime.fromtimestamp(row["raised_wall_ns"] / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        when = f"since {at}" if row["raised_wall_ns"] else ""
        print(f"{row['severity'] or '-':<9} {row['state']:<15} {row['alarm']:<32} {when}  {row.get('reason', '')}")
    return 0


def read(state_dir: Path, everything: bool) -> list[dict[str, Any]]:
    path, now_ns = state_dir / alarm_file.NAME, SystemClock().monotonic_ns()
    if not path.exists():
        return []
    try:
        return rows(alarm_file.read(path, boot_id(), now_ns), everything, now_ns)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise GudgeonError(f"{path}: is damaged ({error}); the running device mends it at its next start") from error


def act(args: argparse.Namespace, state_dir: Path) -> int:
    if not args.alarm:
        raise UsageError(f"{args.action}: which alarm? gudgeon alarms --config {args.config} lists them")
    for_s = duration_s(args.for_text) if args.action == "shelve" else 0.0
    reason = send(state_dir / SOCKET_PATH, args.action, args.alarm, args.by, for_s)
    if args.json:
        print(json.dumps({"alarm": args.alarm, "action": args.action, "done": not reason, "reason": reason}))
    elif reason:
        print(f"gudgeon alarms: {reason}", file=sys.stderr)
    else:
        print(f"{args.alarm}: {args.action} done")
    return 1 if reason else 0
