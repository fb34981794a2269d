"""What `gudgeon cloud` and `gudgeon ingest` have in common: the command line, signals, the ready file, one line for an error."""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from cloud.ingest import Ingest
from cloud.settings import CloudSettings, load_cloud
from cloud.store.writer import Writer
from edge_runtime import log
from edge_runtime.errors import GudgeonError, ResourceError

#: called with what the ready file tells, once everything serves
OnReady = Callable[[dict[str, int]], None]
Run = Callable[[CloudSettings, OnReady, threading.Event], None]


def serve(name: str, description: str, ready_help: str, run: Run, argv: list[str] | None) -> int:
    """`run` until SIGTERM or SIGINT; the exit code."""
    parser = argparse.ArgumentParser(prog=f"gudgeon {name}", description=description)
    parser.add_argument("--config", type=Path, required=True, metavar="cloud.toml")
    parser.add_argument("--ready-file", type=Path, metavar="F", help=ready_help)
    args = parser.parse_args(argv)
    stop = threading.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
    try:
        settings = load_cloud(args.config)
        log.setup(name)

        def ready(told: dict[str, int]) -> None:
            if args.ready_file:
                write_ready(args.ready_file, told)

        run(settings, ready, stop)
    except GudgeonError as error:
        print(f"gudgeon {name}: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def few_collections() -> None:
    """What is loaded is never looked at again, and a commit makes no cycles: less often than Python's default, which takes a
    sixth of a worker's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 10, 10)


def write_ready(path: Path, told: dict[str, int]) -> None:
    """The whole file or none: written beside it and renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(json.dumps(told))
        os.replace(temporary, path)
    except OSError as error:
        raise ResourceError(f"{path}: the ready file cannot be written: {error.strerror}") from error


def make_ingest(settings: CloudSettings, writer: Writer, port: int) -> Ingest:
    """For the broker of the settings; `port` is where it listens."""
    return Ingest(writer, settings.broker.host, port, settings.broker, settings.broker.embedded)
