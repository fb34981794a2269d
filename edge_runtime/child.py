"""How a process of the device begins and ends: read the configuration, run, and tell an error in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from edge_runtime import config, log
from edge_runtime.config import DeviceConfig
from edge_runtime.errors import GudgeonError


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
