"""`gudgeon-tuf-client`: `TrustedRepository` as three commands, so that a public test suite for TUF clients can drive it.

    gudgeon-tuf-client --metadata-dir D init ROOT
    gudgeon-tuf-client --metadata-dir D --metadata-url URL refresh
    gudgeon-tuf-client --metadata-dir D --metadata-url URL --target-name PATH --target-base-url URL --target-dir DIR download

Exit code 0, or 1 and one line that says why. It takes any target, not only artifacts; a device's updater asks for more. And it
believes the clock, also where that is before the day of this release: a test suite plays old repositories at their own time."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from tuf.api.metadata import TargetFile

from edge_runtime.clock import SystemClock
from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.errors import BundleError, ConfigError, GudgeonError
from edge_runtime.update.tuf.checked import CheckedUpdater
from edge_runtime.update.tuf.floor import FloorFiles
from edge_runtime.update.tuf.repository import ROOT_LIMIT_BYTES, TrustedRepository
from edge_runtime.update.tuf.source import HttpSource, MissingError
from edge_runtime.wire.target import prefixed

#: where trust begins, beside the metadata; not named as metadata are
ANCHOR = "anchor"
TARGET_LIMIT_BYTES = 256 * 1024 * 1024


def main(argv: list[str] | None = None) -> int:
    try:
        args = _arguments(sys.argv[1:] if argv is None else argv)
        COMMANDS[args.command](args)
    except SystemExit as ended:  # of the arguments
        return 1 if ended.code else 0
    except GudgeonError as error:
        print(f"gudgeon-tuf-client: {error}", file=sys.stderr)
        return 1
    return 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gudgeon-tuf-client", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--metadata-dir", type=Path, required=True, metavar="D")
    for name in ("--metadata-url", "--target-name", "--target-base-url"):
        parser.add_argument(name, default="")
    parser.add_argument("--target-dir", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path, metavar="ROOT")
    commands.add_parser("refresh")
    commands.add_parser("download")
    args = parser.parse_args(argv)
    if args.command != "init" and not args.metadata_url:
        parser.error(f"{args.command} needs --metadata-url")
    if args.command == "download" and not (args.target_name and args.target_base_url and args.target_dir):
        parser.error("download needs --target-name, --target-base-url and --target-dir")
    return args


def init(args: argparse.Namespace) -> None:
    """Nothing is asked of the repository, and nothing is verified yet."""
    with disk_errors(args.root):
        data = args.root.read_bytes()
    if len(data) > ROOT_LIMIT_BYTES:
        raise ConfigError(f"{args.root}: larger than {ROOT_LIMIT_BYTES} bytes, expected root metadata")
    with disk_errors(args.metadata_dir):
        args.metadata_dir.mkdir(parents=True, exist_ok=True)
        if (args.metadata_dir / ANCHOR).exists():
            raise ConfigError(f"{args.metadata_dir}: trust has begun here already; choose another folder")
    FloorFiles(args.metadata_dir, args.metadata_dir)
    replace_file(args.metadata_dir / "root.json", data)
    replace_file(args.metadata_dir / ANCHOR, data)


def refresh(args: argparse.Namespace) -> CheckedUpdater:
    anchor = args.metadata_dir / ANCHOR
    with disk_errors(anchor):
        root = anchor.read_bytes()
    source, clock = HttpSource(args.metadata_url), SystemClock()
    repository = TrustedRepository(args.metadata_dir, root, source, clock, lambda: 0, metadata=args.metadata_dir)
    return repository.refresh().updater


def download(args: argparse.Namespace) -> None:
    updater = refresh(args)
    info = updater.look_up(args.target_name)
    if info is None:
        raise BundleError(f"target {args.target_name!r}: not in the repository's signed targets; refused")
    place = args.target_dir / quote(args.target_name, safe="")
    with disk_errors(place):
        if place.is_file() and _is_signed(info, place.read_bytes()):
            return
    path = args.target_name
    if updater.hash_prefixed:
        path = prefixed(path, next(iter(info.hashes.values())))
    data = b"".join(_bounded(HttpSource(args.target_base_url).chunks(path), min(info.length, TARGET_LIMIT_BYTES), path))
    if not _is_signed(info, data):
        raise BundleError(f"target {args.target_name!r}: not the bytes that are signed; refused")
    replace_file(place, data)


def _bounded(chunks: Iterator[bytes], limit_bytes: int, what: str) -> Iterator[bytes]:
    length = 0
    try:
        for chunk in chunks:
            length += len(chunk)
            if length > limit_bytes:
                raise BundleError(f"{what}: longer than {limit_bytes} bytes; refused")
            yield chunk
    except MissingError as error:
        raise BundleError(f"{what}: not in the repository") from error


def _is_signed(info: TargetFile, data: bytes) -> bool:
    """Length and every hash; at least one that is known."""
    known = {name: value for name, value in info.hashes.items() if name in hashlib.algorithms_guaranteed}
    return (
        len(data) == info.length
        and bool(known)
        and all(hashlib.new(name, data).hexdigest() == value for name, value in known.items())
    )


COMMANDS = {"init": init, "refresh": refresh, "download": download}


if __name__ == "__main__":
    sys.exit(main())
