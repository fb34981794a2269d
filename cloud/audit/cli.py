"""`gudgeon audit`: what was done to the fleet, by whom, and whether the log of it is whole.

    gudgeon audit list   --config cloud.toml [--last N] [--actor A] [--did rollout] [--subject S] [--outcome refused]
    gudgeon audit export --config cloud.toml --out F.jsonl
    gudgeon audit archive --config cloud.toml --to FOLDER [--keep-days N]   older rows go into a signed file, out of the store
    gudgeon audit verify --config cloud.toml [--known F]       the log in the store, against its signed checkpoints
    gudgeon audit verify --config cloud.toml --archive FOLDER  the same, and the files of the archive before it
    gudgeon audit verify --export F.jsonl --key KEY            a file, anywhere; KEY from `gudgeon device DEV key`

--known F: a checkpoint that was put aside earlier (a copy of the file NAME.audit beside the cloud's key).
Exit codes: 0 whole; 1 tampered with; 2 wrong use; 6 the store cannot be read; 8 the file is no export."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from cloud.access.shell import shell_actor
from cloud.audit import archive, checkpoint, export
from cloud.audit.listing import Wanted, listing
from cloud.audit.verify import Report
from cloud.settings import CloudSettings, load_cloud
from cloud.store.opening import open_store
from edge_runtime.durable import disk_errors
from edge_runtime.errors import UsageError
from edge_runtime.identity import load_or_make, public_text
from edge_runtime.wire.signed import SIGNED_LIMIT_BYTES

DAY_NS = 86_400 * 1_000_000_000


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gudgeon audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    shown = _action(actions, "list", "the newest rows")
    shown.add_argument("--last", type=int, default=50, metavar="N", help="so many (50)")
    for name, text in (("actor", "who"), ("subject", "to what"), ("outcome", "done, refused or failed")):
        shown.add_argument(f"--{name}", metavar=name[0].upper(), help=text)
    shown.add_argument("--did", metavar="A", help="what: the first part of an action, such as rollout")
    _action(actions, "export", "the whole log as a file that can be checked anywhere").add_argument(
        "--out", type=Path, required=True, metavar="F"
    )
    archived = _action(actions, "archive", "older rows go into a signed file, out of the store")
    archived.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the files are; keep them")
    archived.add_argument("--keep-days", type=float, default=400.0, metavar="N", help="what stays in the store (400)")
    checked = _action(actions, "verify", "is the log whole?")
    checked.add_argument("--archive", type=Path, metavar="FOLDER", help="with the files of the archive")
    checked.add_argument("--export", type=Path, metavar="F", help="a file instead of the store")
    checked.add_argument("--key", metavar="KEY", help="the cloud's public key (that of --config)")
    checked.add_argument(
        "--known", type=Path, action="append", default=[], metavar="F", help="a checkpoint from elsewhere"
    )
    args = parser.parse_args(argv)
    return ACTIONS[args.action](args)


def _action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    parser.add_argument("--config", type=Path, metavar="cloud.toml")
    parser.add_argument("--json", action="store_true")
    return parser


@contextmanager
def _store(args: argparse.Namespace) -> Iterator[tuple[CloudSettings, Engine]]:
    if args.config is None:
        raise UsageError("expected --config cloud.toml")
    settings = load_cloud(args.config)
    engine = open_store(settings.store.address)
    try:
        yield settings, engine
    finally:
        engine.dispose()


def _list(args: argparse.Namespace) -> int:
    wanted = Wanted(args.actor, args.did, args.subject, args.outcome)
    with _store(args) as (_, engine):
        found = listing(engine, wanted, limit=args.last)
    if args.json:
        print(json.dumps(found))
    for row in [] if args.json else reversed(found):
        at = datetime.fromtimestamp(row["at_ns"] / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        by = f"{row['actor']} ({row['role']}, {row['via']}{' ' + row['address'] if row['address'] else ''})"
        detail = "" if row["detail"] == {} else " " + json.dumps(row["detail"])
        print(f"{row['seq']:>6}  {at}  {row['outcome']:<7}  {row['action']:<18} {row['subject']}  by {by}{detail}")
    return 0


def _export(args: argparse.Namespace) -> int:
    temporary = args.out.with_name(f".{args.out.name}.{os.getpid()}")
    count = 0
    with _store(args) as (settings, engine), disk_errors(args.out):
        try:
            with temporary.open("wb") as file:
                for line in export.lines(engine, load_or_make(settings.store.key_file), time.time_ns()):
                    file.write(line + b"\n")
                    count += 1
            temporary.replace(args.out)
        finally:
            temporary.unlink(missing_ok=True)
    told = {"file": str(args.out), "lines": count}
    print(json.dumps(told) if args.json else f"{args.out}: {count} lines; check it with gudgeon audit verify --export")
    return 0


def _archive(args: argparse.Namespace) -> int:
    if not 0 <= args.keep_days <= 36_500:
        raise UsageError(f"--keep-days is {args.keep_days:g}, expected 0 to 36500")
    now_ns = time.time_ns()
    before_ns = now_ns - round(args.keep_days * DAY_NS)
    with _store(args) as (settings, engine):
        key = load_or_make(settings.store.key_file)
        made = archive.archive(engine, key, settings.anchor_file, args.to, shell_actor(), before_ns, now_ns)
    if args.json:
        print(json.dumps(made._asdict() if made else None))
    elif made is None:
        print("no rows that may go: they are too young, or among the newest that were signed")
    else:
        print(f"{args.to / made.file}: rows {made.first} to {made.last}; they are no longer in the store")
    return 0


def _verify(args: argparse.Namespace) -> int:
    known = [_known(path) for path in args.known]
    if args.export is None:
        with _store(args) as (settings, engine):
            key = _public(args.key) if args.key else load_or_make(settings.store.key_file).public_key()
            if args.archive is not None:
                report = archive.look_through(engine, key, settings.anchor_file, args.archive, known)
            else:
                report = checkpoint.look(engine, key, settings.anchor_file, known)
                archive.check_known(known, key, report)
    else:
        if args.key is None and args.config is None:
            raise UsageError(
                "an export is checked with the cloud's public key: expected --key KEY or --config cloud.toml"
            )
        text = args.key or public_text(load_or_make(load_cloud(args.config).store.key_file))
        report = export.look(args.export, _public(text), known)
    return _tell(report, args.json)


def _public(text: str) -> Any:
    try:
        return checkpoint.public_key(text)
    except ValueError as error:
        raise UsageError(f"--key: {error}; expected one line of base64, as gudgeon device DEV key prints it") from error


def _known(path: Path) -> str:
    with disk_errors(path), path.open("rb") as file:
        return file.read(SIGNED_LIMIT_BYTES).decode("utf-8", "replace")


def _tell(report: Report, as_json: bool) -> int:
    if as_json:
        print(json.dumps(report._asdict() | {"whole": not report.findings}))
    else:
        newer = report.last - report.signed
        before = f"; rows 1 to {report.archived} are in an archive and were not looked at" if report.archived else ""
        print(
            f"{report.rows} rows, signed up to row {report.signed}" + (f", {newer} newer" if newer > 0 else "") + before
        )
        for finding, times in Counter(report.findings).items():
            print(f"gudgeon audit: {finding}" + (f" ({times} times)" if times > 1 else ""), file=sys.stderr)
        print("tampered with" if report.findings else "whole")
    return 1 if report.findings else 0


ACTIONS = {"list": _list, "export": _export, "archive": _archive, "verify": _verify}
