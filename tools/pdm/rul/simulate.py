"""Made-up fleets in the form of C-MAPSS: machines that wear, slowly and then fast, until they fail.

`python -m tools.pdm.rul.simulate --units 40 --regimes 6 --out F` writes a run-to-failure file; `--cut` one of machines
that still run, with `--truth` what is left of each. Wear goes from a small start to 1, where a machine fails; some sensors
follow it, some stand still, all but those are noisy. With several regimes every row has its own operating settings, which
move every sensor by more than the wear does.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.durable import replace_file
from tools.pdm.rul import cuts
from tools.pdm.rul.data import SENSORS, Unit

Floats = NDArray[np.float64]

STILL = (0, 4, 9, 15)  # sensors that say nothing
NOISE = 0.35  # of what the wear of a whole life moves a sensor by


@dataclass(frozen=True)
class Fleet:
    units: int = 30
    regimes: int = 1
    shortest: int = 120
    longest: int = 300


def make_units(fleet: Fleet, seed: int) -> list[Unit]:
    """Machines that run until they fail; equal seeds give equal machines of one type."""
    rng = np.random.default_rng(seed)
    settings = np.column_stack([10.0 * np.arange(fleet.regimes), 0.1 * np.arange(fleet.regimes) ** 0.5,
                                np.where(np.arange(fleet.regimes) % 3 == 2, 60.0, 100.0)])  # fmt: skip
    kind = np.random.default_rng((0, 1))  # the type of machine is the same for every seed
    base = 100.0 * kind.uniform(1, 20, (fleet.regimes, len(SENSORS)))
    moved = base[0] * kind.uniform(0.01, 0.05, len(SENSORS)) * kind.choice([-1.0, 1.0], len(SENSORS))
    moved[list(STILL)] = 0.0
    units = []
    for number in range(1, fleet.units + 1):
        life = int(rng.integers(fleet.shortest, fleet.longest + 1))
        regime = rng.integers(0, fleet.regimes, life)
        wear = _wear(life, rng)
        noise = NOISE * np.abs(moved) * rng.normal(size=(life, len(SENSORS)))
        sensors = base[regime] + moved * wear[:, None] + noise
        set_to = settings[regime] + rng.normal(0, [2e-3, 3e-4, 0.0], (life, 3))
        units.append(Unit(number, np.column_stack([np.arange(1, life + 1.0), set_to, sensors])))
    return units


def _wear(life: int, rng: np.random.Generator) -> Floats:
    """From a start of up to 0.15 to 1 at the last row, with a pace of its own."""
    start, pace = rng.uniform(0.0, 0.15), rng.uniform(3.0, 6.0)
    grown = np.expm1(pace * np.arange(1, life + 1) / life) / np.expm1(pace)
    return np.asarray(start + (1.0 - start) * grown)


def cut_units(units: Sequence[Unit], seed: int) -> tuple[list[Unit], list[int]]:
    """(machines that still run, what is left of each), cut by `cuts.weights`."""
    rng = np.random.default_rng((seed, 2))  # not the stream that made the units
    at = [int(cuts.draw(len(unit), 1, rng)[0]) for unit in units]
    seen = [Unit(unit.number, unit.rows[: i + 1]) for unit, i in zip(units, at, strict=True)]
    return seen, [len(unit) - 1 - i for unit, i in zip(units, at, strict=True)]


def text(units: Sequence[Unit]) -> str:
    """The file of these units."""
    lines = []
    for unit in units:
        for row in unit.rows:
            lines.append(f"{unit.number} {row[0]:.0f} " + " ".join(f"{value:.4f}" for value in row[1:]))
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.pdm.rul.simulate", description=__doc__)
    parser.add_argument("--units", type=int, default=Fleet.units, help="default: %(default)s")
    parser.add_argument("--regimes", type=int, default=Fleet.regimes, help="ways of running (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--cut", action="store_true", help="machines that still run")
    parser.add_argument("--truth", type=Path, metavar="F", help="with --cut: what is left of each, a number a line")
    parser.add_argument("--out", type=Path, required=True, metavar="F")
    args = parser.parse_args(argv)
    if args.units < 1 or not 1 <= args.regimes <= 10 or args.seed < 0 or (args.truth and not args.cut):
        parser.error("expected --units of 1 or more, --regimes from 1 to 10, --seed 0 or more, --truth only with --cut")
    units = make_units(Fleet(args.units, args.regimes), args.seed)
    if args.cut:
        units, left = cut_units(units, args.seed)
        if args.truth:
            replace_file(args.truth, "".join(f"{value}\n" for value in left).encode())
    replace_file(args.out, text(units).encode())
    print(f"{len(units)} units, {sum(map(len, units))} rows: {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
