"""`gudgeon up`: Mosquitto, PostgreSQL, ingest workers and the web server on this machine, until Ctrl-C.

What is stored stays in the folder. A process that dies is started again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from edge_runtime.child import stop_event
from edge_runtime.durable import disk_errors
from tools.arguments import MANY, PORT, check_bounds
from tools.up.stack import CHECK_S, Devices, Stack

#: PostgreSQL does not run as root and must reach its files
ROOT_FOLDER, USER_FOLDER = Path("/var/lib/gudgeon-up"), Path("var") / "up"

BOUNDS = {
    "workers": (1, 64), "http_port": PORT, "broker_port": PORT, "devices_port": PORT, "devices_broker_port": PORT,
    "for_s": (0, MANY),
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gudgeon up", description=__doc__)
    default = ROOT_FOLDER if os.geteuid() == 0 else USER_FOLDER
    parser.add_argument("--folder", type=Path, default=default, help=f"data, logs, settings ({default})")
    parser.add_argument("--workers", type=int, default=2, help="ingest workers (2)")
    parser.add_argument("--http-port", type=int, default=8080, help="0: any free one (8080)")
    parser.add_argument("--broker-port", type=int, default=1883, help="0: any free one (1883)")
    parser.add_argument(
        "--devices",
        action="store_true",
        help="let devices in by certificates: HTTPS and MQTT over TLS, and releases of FOLDER/registry",
    )
    parser.add_argument("--devices-port", type=int, default=8443, help="HTTPS for devices; 0: any free one (8443)")
    parser.add_argument(
        "--devices-broker-port", type=int, default=8883, help="MQTT for devices; 0: any free one (8883)"
    )
    parser.add_argument("--for-s", type=float, default=0.0, help="end after so many seconds; 0: at Ctrl-C")
    parser.add_argument("--json", action="store_true", help="one line of JSON once everything serves")
    args = parser.parse_args(argv)
    check_bounds(args, BOUNDS)
    stop, console = stop_event(), Console(stderr=True)
    folder = args.folder.resolve()
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as running:
        with console.status("starting …", spinner="dots") as status:
            told_by = lambda name: status.update(f"starting {name} …")  # noqa: E731
            devices = Devices(args.devices_port, args.devices_broker_port) if args.devices else None
            made = Stack(folder, args.workers, args.http_port, args.broker_port, told=told_by, devices=devices)
            stack = running.enter_context(made)
        told = {
            "page": f"http://127.0.0.1:{stack.http_port}/", "broker": f"127.0.0.1:{stack.broker_port}",
            "config": str(stack.config()), "workers": args.workers, "logs": str(folder / "log"),
        }  # fmt: skip
        if stack.devices:
            told |= {
                "devices": f"https://127.0.0.1:{stack.devices_port}",
                "mqtts": f"127.0.0.1:{stack.devices.broker_port}",
            }
        print(json.dumps(told) if args.json else "\n".join(f"{k:>8}  {v}" for k, v in told.items()), flush=True)
        end_s = time.monotonic() + args.for_s if args.for_s else float("inf")
        while not stop.wait(CHECK_S) and time.monotonic() < end_s:
            stack.tick()
    return 0
