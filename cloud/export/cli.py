"""`gudgeon export`: Events of one device or of all, of a period, as a Parquet file; from a running cloud or from its store.

The file appears whole or not at all. Exit codes as usual: 2 the question is wrong, 5 the cloud cannot be reached, 6 disk."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sqlalchemy.exc import SQLAlchemyError

from cloud.client import add_token_arguments, streamed
from cloud.period import parse_period
from cloud.settings import load_cloud
from cloud.store.opening import open_existing
from edge_runtime.durable import disk_errors, sync_folder
from edge_runtime.errors import EndpointError, MissingExtraError, ResourceError
from edge_runtime.wire.envelope import STREAMS


def main(argv: list[str]) -> int:
    args = _arguments(argv)
    try:
        import pyarrow.parquet  # noqa: F401
        import rich  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"needs {error.name}; run: pip install 'gudgeon[cloud]'") from error
    rows = _write(_pieces(args), args.out, quiet=args.json or not sys.stderr.isatty())
    told = {"out": str(args.out), "rows": rows, "size_bytes": args.out.stat().st_size}
    print(json.dumps(told) if args.json else f"{told['out']}: {told['rows']} rows, {told['size_bytes']} bytes")
    return 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gudgeon export", description=__doc__)
    parser.add_argument("device", nargs="?", metavar="DEVICE")
    parser.add_argument("--all", action="store_true", help="every device")
    parser.add_argument("--cloud", metavar="URL", help="of the running cloud, such as http://127.0.0.1:8080")
    add_token_arguments(parser)
    parser.add_argument("--config", type=Path, metavar="cloud.toml", help="read the cloud's store directly")
    parser.add_argument("--stream", choices=list(STREAMS), metavar="S", help=f"one of {', '.join(STREAMS)}; else all")
    parser.add_argument("--from", dest="start", metavar="T", help="ISO 8601, UTC; when it happened (time)")
    parser.add_argument("--to", dest="end", metavar="T", help="not included")
    parser.add_argument("--out", type=Path, required=True, metavar="F.parquet")
    parser.add_argument("--json", action="store_true", help="print {out, rows, size_bytes}")
    args = parser.parse_args(argv)
    if bool(args.device) == args.all or bool(args.cloud) == bool(args.config):
        parser.error("expected DEVICE or --all, and one of --cloud URL or --config cloud.toml")
    return args


def _pieces(args: argparse.Namespace) -> Iterator[bytes]:
    period = parse_period(args.start, args.end)
    if args.config:
        from cloud.export.parquet import Wanted, parquet_bytes

        engine = open_existing(load_cloud(args.config).store.address)
        try:
            wanted = Wanted(args.device, args.stream, period)
            wanted.check(engine)
            yield from parquet_bytes(engine, wanted)
        except SQLAlchemyError as error:
            raise ResourceError(f"{args.config}: the store cannot be read: {error}") from error
        finally:
            engine.dispose()
        return
    named = {"device": args.device, "stream": args.stream, "from": args.start, "to": args.end}
    params = {name: text for name, text in named.items() if text is not None}
    with streamed(args, "/export.parquet", params) as answer:
        yield from answer.iter_bytes()


def _write(pieces: Iterator[bytes], path: Path, quiet: bool) -> int:
    """The rows of the whole file; written beside it and renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with disk_errors(path):
        try:
            with temporary.open("wb") as file:
                _fill(file, pieces, path.name, quiet)
                file.flush()
                os.fsync(file.fileno())
            rows = _rows(temporary)
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return rows


def _fill(file: BinaryIO, pieces: Iterator[bytes], name: str, quiet: bool) -> None:
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

    shown = (SpinnerColumn(), TextColumn(name), DownloadColumn(), TransferSpeedColumn())
    with Progress(*shown, console=Console(stderr=True), disable=quiet, transient=True) as progress:
        task = progress.add_task(name, total=None)
        for piece in pieces:
            file.write(piece)
            progress.advance(task, len(piece))


def _rows(path: Path) -> int:
    """As the file itself tells; EndpointError where its end is missing."""
    import pyarrow
    import pyarrow.parquet

    try:
        return int(pyarrow.parquet.read_metadata(path).num_rows)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise EndpointError(f"what came is no whole Parquet file ({error}); ask again") from error
