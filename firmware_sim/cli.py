"""`gudgeon sim line`, `images` and `pump`. Options override the file; errors are one line and an exit code."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import NoReturn

from firmware_sim import config as config_file
from firmware_sim.config import Config
from firmware_sim.errors import SimError, UsageError

USAGE = """usage: gudgeon sim line [--config line.toml] [options]     the simulated PLC line
       gudgeon sim images --out DIR [options]            a labelled folder of drawn parts
       gudgeon sim pump [--config pump.toml] [options]   a pump that wears out, with its sensors"""


def main(argv: list[str]) -> int:
    name, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    try:
        if name in ("-h", "--help"):
            print(USAGE)
            return 0
        if name == "line":
            return _line(rest)
        if name == "images":
            from firmware_sim.images_cli import main as images

            return int(images(rest))
        if name == "pump":
            from firmware_sim.pump.cli import main as pump

            return int(pump(rest))
        raise UsageError(
            f"unknown command {name!r}{config_file.nearest(name, ('line', 'images', 'pump'))}; see gudgeon sim --help"
        )
    except SimError as error:
        print(f"gudgeon sim: {error}", file=sys.stderr)
        return error.exit_code


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog.removeprefix('gudgeon sim ')}: {message}; see {self.prog} --help")


def _line(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    config = config_file.check(_with_options(args), "the command line")
    from firmware_sim.runner import serve

    serve(config, args.ready_file)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="gudgeon sim line", description="A PLC line with camera, over Modbus and OPC UA.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="line.toml; without it, the defaults")
    parser.add_argument("--parts", type=int, metavar="N", help="stop (Completed) after N parts; 0: no end")
    parser.add_argument("--parts-per-s", type=float, metavar="X")
    parser.add_argument("--images", type=Path, metavar="DIR", help="take the parts from a labelled folder")
    parser.add_argument("--split", metavar="NAME", help="which split of labels.csv")
    parser.add_argument("--seed", type=int, metavar="S")
    parser.add_argument("--scenario", type=Path, metavar="FILE", help="faults to inject")
    parser.add_argument("--log", type=Path, metavar="FILE", help="part log, JSON lines")
    parser.add_argument("--wait-for-device", action="store_true", default=None, help="start once a heartbeat has moved")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="written with the ports when the line serves")
    return parser


def _with_options(args: argparse.Namespace) -> Config:
    config = config_file.load(args.config) if args.config else Config()
    line = {k: getattr(args, k) for k in ("parts", "parts_per_s", "seed", "wait_for_device")}
    picked = {"images": args.images, "split": args.split, "kind": "folder" if args.images else None}
    files = {"scenario": args.scenario, "log": args.log}

    def given(values: dict[str, object]) -> dict[str, object]:
        return {key: value for key, value in values.items() if value is not None}

    return dataclasses.replace(
        config,
        line=dataclasses.replace(config.line, **given(line)),  # type: ignore[arg-type]
        source=dataclasses.replace(config.source, **given(picked)),  # type: ignore[arg-type]
        **given(files),  # type: ignore[arg-type]
    )
