"""Can this runtime run here? `python -m edge_runtime.update.self_check --config device.toml`, asked before it is put on trial.

Imports every process of a device and reads the configuration; touches nothing and starts nothing. Exit code 0: yes.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from edge_runtime import config
from edge_runtime.errors import GudgeonError
from edge_runtime.tasks import wanted


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="self_check", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="device.toml")
    args = parser.parse_args(argv)
    try:
        device = config.load_device(args.config)
        for task in wanted(device.has_line, device.has_sensors, device.update.takes):
            importlib.import_module(task.module)
    except GudgeonError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
