"""`gudgeon backup`: copies of a whole cloud, and any moment of them again.

    gudgeon backup run     --config cloud.toml --to DIR [--every S] [--keep-days N]   until Ctrl-C; beside the running cloud
    gudgeon backup once    --config cloud.toml --to DIR
    gudgeon backup list    --from DIR
    gudgeon backup restore --from DIR --into FOLDER [--at 2026-11-25T18:00:00Z]        into a new folder, and checked
    gudgeon backup drill   --from DIR [--at …]                                        the same into a temporary one; says how
    long it took

SQLite: a copy every --every seconds, and a moment is the last copy before it. PostgreSQL: a base backup a day and all that is
written as it is written, and a moment is exact. The folder holds private keys.
Exit codes: 0 done; 1 restored, but the check found something; 2 wrong use; 6 disk, database or permission; 8 damaged, or not
in the backup."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from cloud.access.shell import shell_actor
from cloud.backup.copying import Copied, Copying, alone
from cloud.backup.restoring import Restored, restore
from cloud.backup.shelf import Shelf, iso
from cloud.backup.sqlite_copies import SqliteCopies
from cloud.period import parse_time
from cloud.settings import load_cloud
from edge_runtime.child import stop_event
from edge_runtime.clock import SystemClock
from edge_runtime.errors import UsageError

ROOT_TEMP = Path("/var/tmp")  # noqa: S108  # PostgreSQL does not run as root and must reach its files


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gudgeon backup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (("run", "copy again and again, until Ctrl-C"), ("once", "copy now")):
        made = _action(actions, name, text)
        made.add_argument("--config", type=Path, required=True, metavar="cloud.toml")
        made.add_argument("--to", type=Path, required=True, metavar="DIR")
        made.add_argument("--every", type=float, default=60.0, metavar="S", help="seconds between two looks (60)")
        made.add_argument("--keep-days", type=float, default=14.0, metavar="N", help="any moment of so many days (14)")
    reading = {
        "list": "which moments there are",
        "restore": "one moment, into a new folder",
        "drill": "is it any good?",
    }
    for name, text in reading.items():
        read = _action(actions, name, text)
        read.add_argument("--from", dest="source", type=Path, required=True, metavar="DIR")
        if name != "list":
            read.add_argument("--at", metavar="TIME", help="ISO 8601, without a zone UTC (the newest)")
        if name == "restore":
            read.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    args = parser.parse_args(argv)
    return ACTIONS[args.action](args)


def _action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true")
    return parser


def _run(args: argparse.Namespace) -> int:
    if args.every < 0.1 or args.keep_days <= 0:
        raise UsageError("expected --every of 0.1 or more and --keep-days above 0")
    stop = stop_event()
    if args.action == "once":
        stop.set()
    config = args.config.resolve()
    copying = Copying(load_cloud(config), config, args.to.resolve(), SystemClock())
    with alone(args.to):
        try:
            copying.start()
            for copied in copying.run(args.every, args.keep_days, stop):
                if copied.files or copied.store_ns is not None or args.action == "once":
                    _tell_copied(copied, args.json)
        finally:
            copying.store.stop()
    return 0


def _tell_copied(copied: Copied, as_json: bool) -> None:
    if as_json:
        print(json.dumps(copied._asdict()), flush=True)
    else:
        parts = ["files"] if copied.files else []
        parts += [f"store as of {iso(copied.store_ns)}"] if copied.store_ns is not None else []
        print(f"kept: {', '.join(parts) or 'nothing new'}", flush=True)


def _list(args: argparse.Namespace) -> int:
    if not (args.source / "files").is_dir():
        raise UsageError(f"{args.source}: no backup; `gudgeon backup once --to` makes one")
    store = args.source / "sqlite"
    if store.is_dir():
        copies = SqliteCopies(store, lambda: 0)
        found: dict[str, Any] = {"store": "sqlite", "copies_ns": copies.times(), "seen_ns": copies.seen_ns()}
    else:
        bases = sorted(int(p.name) for p in (args.source / "postgresql" / "base").glob("*") if p.name.isdecimal())
        found = {
            "store": "postgresql",
            "bases_ns": bases,
            "log_files": len(list((args.source / "postgresql" / "wal").glob("*"))),
        }
    found["files_ns"] = Shelf(args.source).times()
    if args.json:
        print(json.dumps(found))
        return 0
    for name, value in found.items():
        if isinstance(value, list):
            span = f", {iso(value[0])} to {iso(value[-1])}" if value else ""
            print(f"{name.removesuffix('_ns'):>10}  {len(value)}{span}")
        else:
            print(f"{name.removesuffix('_ns'):>10}  {iso(value) if name.endswith('_ns') else value}")
    return 0


def _moment(text: str | None) -> int | None:
    return None if text is None else parse_time(text)


def _restore(args: argparse.Namespace) -> int:
    return _tell(restore(args.source.resolve(), _moment(args.at), args.into.resolve(), shell_actor()), args.json)


def _drill(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="gudgeon-drill-", dir=ROOT_TEMP) as folder:
        Path(folder).chmod(0o711)
        found = restore(args.source.resolve(), _moment(args.at), Path(folder) / "cloud", shell_actor())
    return _tell(found, args.json)


def _tell(found: Restored, as_json: bool) -> int:
    if as_json:
        print(json.dumps(found._asdict()))
    else:
        newest = iso(found.newest_ns) if found.newest_ns else "none"
        print(
            f"{found.folder}: {found.store}, {found.files} files, {found.audit_rows} audit rows, the newest of {newest}"
        )
        print(f"took {found.took_s:.2f} s, checks included")
        for finding in found.findings:
            print(f"gudgeon backup: {finding}", file=sys.stderr)
    return 1 if found.findings else 0


ACTIONS = {"run": _run, "once": _run, "list": _list, "restore": _restore, "drill": _drill}
