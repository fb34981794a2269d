"""How a process begins and ends: read the configuration, run until a signal, tell an error in one line, outlive no parent."""

from __future__ import annotations

import argparse
import ctypes
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from edge_runtime import config, log
from edge_runtime.config import DeviceConfig
from edge_runtime.errors import GudgeonError

PR_SET_PDEATHSIG = 1


def stop_event() -> threading.Event:
    """Set by SIGTERM and by Ctrl-C from now on. To be called in the main thread."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    return stopping


def end_with_parent() -> None:
    """For `preexec_fn`: the kernel stops this process when its parent dies, so that a killed parent leaves nothing running
    (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def child_main(name: str, run: Callable[[DeviceConfig], None], argv: list[str] | None = None) -> int:
    """Run the process `name` of `edge_runtime.tasks`; its exit code."""
    parser = argparse.ArgumentParser(prog=name, description=f"The process `{name}`; started by `gudgeon run`.")
    parser.add_argument("--config", type=Path, required=True, metavar="device.toml")
    args = parser.parse_args(argv)
    try:
        device = config.load_device(args.config)
        log.setup(name, device.device.state_dir / "log")
        run(device)
    except GudgeonError as error:
        print(f"gudgeon run: {error}", file=sys.stderr)
        return error.exit_code
    return 0
