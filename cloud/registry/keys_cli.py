"""`gudgeon keys`: the keys of the people and machines that sign releases.

    gudgeon keys make FOLDER --name NAME      NAME.key, encrypted with a passphrase, and NAME.pub
    gudgeon keys list FOLDER …                what keys lie there
    gudgeon keys public KEY|PUB [--out F]     the public half, to be handed on

Each holder's keys belong into a folder of their own, best on a medium that is connected only to sign."""

from __future__ import annotations

import argparse
import getpass
import json
import re
import sys
from pathlib import Path
from typing import Any

from cloud.registry.keys import KeyFile, Passphrase, key_files, make_key, read_public
from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.errors import UsageError
from edge_runtime.mqtt_access import secret_file

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gudgeon keys", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    making = actions.add_parser("make", help="make a key")
    making.add_argument("folder", type=Path, metavar="FOLDER")
    making.add_argument("--name", required=True)
    how = making.add_mutually_exclusive_group()
    how.add_argument(
        "--passphrase-file", type=Path, metavar="F", help="its only line; a file that nobody else can read"
    )
    how.add_argument("--no-passphrase", action="store_true", help="not encrypted, readable by its owner only")
    listing = actions.add_parser("list", help="the keys of folders")
    listing.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    public = actions.add_parser("public", help="the public half of a key")
    public.add_argument("key", type=Path, metavar="KEY|PUB")
    public.add_argument("--out", type=Path, metavar="F")
    for sub in (making, listing, public):
        sub.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    return {"make": _make, "list": _list, "public": _public}[args.action](args)


def _make(args: argparse.Namespace) -> int:
    if not NAME.fullmatch(args.name):
        raise UsageError(f"name {args.name!r}: expected 1 to 63 characters of A-Z a-z 0-9 . _ -")
    made = make_key(args.folder, args.name, b"" if args.no_passphrase else _new_passphrase(args.passphrase_file))
    print(
        json.dumps(_told(made)) if args.json else f"made {made.path}, id {made.id[:16]}; give {made.path.stem}.pub away"
    )
    return 0


def _list(args: argparse.Namespace) -> int:
    for folder in args.folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: not a folder of keys")
    found = [_told(file) for folder in args.folders for file in key_files(folder)]
    for key in found if not args.json else ():
        print(f"{key['id'][:16]}  {'encrypted' if key['encrypted'] else 'plain    '}  {key['path']}")
    if args.json:
        print(json.dumps(found))
    return 0


def _public(args: argparse.Namespace) -> int:
    path = args.key.with_suffix(".pub")
    key = read_public(path)
    with disk_errors(path):
        text = path.read_bytes()
    if args.out:
        replace_file(args.out, text)
    print(json.dumps({"id": key.keyid, "public": text.decode().strip()}) if args.json else text.decode().strip())
    return 0


def _told(file: KeyFile) -> dict[str, Any]:
    return {"path": str(file.path), "id": file.id, "encrypted": file.encrypted}


def _new_passphrase(file: Path | None) -> bytes:
    if file:
        return secret_file(file).encode()
    if not sys.stdin.isatty():
        raise UsageError("expected --passphrase-file F or --no-passphrase, since there is no terminal to ask at")
    first, again = (getpass.getpass(text) for text in ("passphrase: ", "again: "))
    if first != again or not first:
        raise UsageError("the passphrases differ, or are empty; nothing was made")
    return first.encode()


def asked(file: Path | None) -> Passphrase | None:
    """From the file, else at the terminal; None where there is neither."""
    if file:
        return lambda key: secret_file(file).encode()
    return (lambda key: getpass.getpass(f"passphrase of {key}: ").encode()) if sys.stdin.isatty() else None
