"""`gudgeon sim pump`. Options override the file; errors are one line and an exit code."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from firmware_sim.cli import Parser
from firmware_sim.pump import config as config_file
from firmware_sim.pump.config import PumpConfig


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    config = config_file.check(_with_options(args), "the command line")
    from firmware_sim.pump.runner import serve

    serve(config, args.ready_file)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="gudgeon sim pump", description="A pump that wears out, over Modbus (TCP, RTU) and OPC UA.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="pump.toml; without it, the defaults")
    parser.add_argument("--speed", type=float, metavar="X", help="simulated seconds in one real second")
    parser.add_argument("--seed", type=int, metavar="S")
    parser.add_argument("--mode", metavar="NAME", help="what fails: none, outer, inner, ball, unbalance, looseness, …")
    parser.add_argument("--start-at", type=float, metavar="X", help="where in its life it is at the start, 0 to 1")
    parser.add_argument("--scenario", type=Path, metavar="FILE", help="dirty sensors, scripted")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="health, remaining life and events, JSON lines")
    parser.add_argument("--rtu", action="store_true", help="serve Modbus RTU on a pseudo-terminal, too")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="written with the ports when the pump serves")
    return parser


def _with_options(args: argparse.Namespace) -> PumpConfig:
    config = config_file.load(args.config) if args.config else PumpConfig()
    given = {k: v for k in ("speed", "seed", "mode", "start_at") if (v := getattr(args, k)) is not None}
    files = {k: v for k in ("scenario", "truth") if (v := getattr(args, k)) is not None}
    rtu = dataclasses.replace(config.rtu, enabled=config.rtu.enabled or args.rtu)
    return dataclasses.replace(config, pump=dataclasses.replace(config.pump, **given), rtu=rtu, **files)
