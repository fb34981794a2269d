"""`python -m tools.proofs.lead_time` (`make lead-time`): how long before the failure an alarm comes, and how often one comes
where nothing is wrong, over seeded lives of the simulated pump.

Samples come from the simulator's own generator; everything behind them is what a device runs (`decide.asset`: windows, features,
engine, calibration, remaining life, alarms), by a fake clock. The bundles are those that ship in `models/pump`; no life here
was trained or calibrated on.

- A row counts as normal before the fault of its life begins. The share of normal rows above the threshold is compared with the
  rate that the bundle states; its interval is a bootstrap over lives, because the rows of one life depend on one another.
- A false alarm is an alarm `anomaly` or `remaining` raised before the fault begins. Its rate is per week of the pump, with
  the exact Poisson interval. What is nominal for it was measured in the same way on other lives (`--nominal`).
- Lead time is from the first alarm after the fault began to the failure.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from edge_runtime.decide.alarm_book import AlarmBook
from edge_runtime.decide.alarms import AlarmSettings
from edge_runtime.decide.asset import Asset
from edge_runtime.decide.asset_config import AssetSection, DriftSettings, RemainingLevels
from edge_runtime.errors import exit_code
from edge_runtime.field.tag import Quality, Sample
from edge_runtime.infer.series import SeriesModel, load_series_model
from tools.arguments import MANY, check_bounds
from tools.pdm.pump import data
from tools.pdm.pump.data import GRID_S, SPEED, Life

Floats = NDArray[np.float64]
HERE = Path(__file__).resolve().parents[2]
BUNDLES = HERE / "models" / "pump"
START_NS = 1_000_000_000_000
FIRST_SEED, NOMINAL_SEED = 1000, 5000
RUNS, NOMINAL_RUNS = 50, 200
WEEK_ROWS = 168 / data.ROW_H
BOOTSTRAPS = 10_000
#: as `gudgeon demo pdm` configures its device; delays in rows of the pump
ALARMS = AlarmSettings(on_delay_s=2 * GRID_S, off_delay_s=12 * GRID_S)
LEVELS = RemainingLevels(times_faster=SPEED, critical_h=12.0, high_h=24.0, medium_h=72.0)


@dataclass(frozen=True)
class Told:
    source: str
    severity: str
    row: int


@dataclass(frozen=True)
class Outcome:
    """One life. Rows count from its start; `begin` and `failure` are rows too. `above`, `normal`: normal rows above the
    threshold, and all that were scored. `covered` of the rows `answered` had what was left inside the interval. `left_error_h`:
    mean absolute error of the smoothed remaining life in the last week."""

    seed: int
    mode: str
    begin: float
    failure: float
    above: int
    normal: int
    alarms: tuple[Told, ...]
    covered: int
    answered: int
    covered_last_week: int
    answered_last_week: int
    left_error_h: float | None

    @property
    def false_alarms(self) -> int:
        return sum(a.row < self.begin for a in self.alarms)

    def lead_h(self, least: str = "low") -> float | None:
        """Hours from the first alarm after the begin to the failure; None where none came."""
        order = ("low", "medium", "high", "critical")
        rows = [
            a.row
            for a in self.alarms
            if self.begin <= a.row < self.failure and order.index(a.severity) >= order.index(least)
        ]
        return (self.failure - min(rows)) * data.ROW_H if rows else None


def models() -> dict[str, SeriesModel]:
    with tempfile.TemporaryDirectory(prefix="gudgeon-lead-time-") as folder:
        cache = Path(folder) / "engines.json"
        return {kind: load_series_model(BUNDLES / kind, cache, "onnxruntime") for kind in ("anomaly", "rul")}


def follow(life: Life, loaded: dict[str, SeriesModel]) -> Outcome:
    """The whole life, reading by reading."""
    section = AssetSection("pump", alarms=ALARMS, remaining=LEVELS, drift=DriftSettings(), lag_s=0.0)
    fresh = {k: SeriesModel(m.manifest, m.digest, m.engine, None, m.refused) for k, m in loaded.items()}
    book = AlarmBook(section.places)
    asset = Asset(section, fresh, book, START_NS)
    counted = _Counted(life)
    told: list[Told] = []
    for i, at_ns in enumerate(life.times_ns.tolist()):
        now_ns = START_NS + at_ns
        for tag, values in life.values.items():
            value = float(values[i])
            good = math.isfinite(value)
            asset.add(
                Sample(tag, value if good else None, Quality.GOOD if good else Quality.BAD, now_ns, now_ns), now_ns
            )
        asset.turn(now_ns, now_ns)
        row = at_ns / 1e9 / GRID_S
        counted.take(asset.state(), row)
        for event in book.untold:
            if event.kind in ("raised", "escalated") and event.body["source"] != "samples":
                told.append(Told(event.body["source"], event.body["severity"], round(row)))
        book.told(len(book.untold))
    return counted.outcome(told)


class _Counted:
    """Counts each scored row once."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._begin, self._failure = life.begin_s / GRID_S, life.failure_s / GRID_S
        self._above = self._normal = 0
        self._inside: list[bool] = []
        self._inside_last_week: list[bool] = []
        self._errors: list[float] = []
        self._row = -1

    def take(self, state: dict[str, Any], row: float) -> None:
        if int(row) == self._row or row >= self._failure:
            return
        self._row = int(row)
        anomaly, remaining = state.get("anomaly", {}), state.get("remaining", {})
        if "score" in anomaly and row < self._begin:
            self._normal += 1
            self._above += anomaly["anomalous"]
        if "remaining" in remaining and math.isfinite(self._failure):
            left_h = (self._failure - row) * data.ROW_H
            capped = min(left_h, 168.0)
            inside = remaining["lower"] <= capped <= remaining["upper"]
            self._inside.append(inside)
            if left_h <= 168.0:
                self._inside_last_week.append(inside)
                self._errors.append(abs(remaining["smoothed"] - left_h))

    def outcome(self, told: Sequence[Told]) -> Outcome:
        error = float(np.mean(self._errors)) if self._errors else None
        return Outcome(
            self._life.seed, self._life.mode, self._begin, self._failure, self._above, self._normal, tuple(told),
            sum(self._inside), len(self._inside), sum(self._inside_last_week), len(self._inside_last_week), error,
        )  # fmt: skip


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def bootstrap(part: Floats, whole: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """95 % interval of Σ part / Σ whole over lives drawn with replacement."""
    drawn = rng.integers(0, len(part), (BOOTSTRAPS, len(part)))
    ratios = part[drawn].sum(1) / whole[drawn].sum(1)
    return float(np.quantile(ratios, 0.025)), float(np.quantile(ratios, 0.975))


def poisson(count: int) -> tuple[float, float]:
    """Exact 95 % interval of the mean of a Poisson count."""
    return _poisson_bound(count, 0.975) if count else 0.0, _poisson_bound(count + 1, 0.025)


def _poisson_bound(count: int, share: float) -> float:
    """The mean at which fewer than `count` come with this probability."""
    low, high = 0.0, 10.0 * count + 50.0
    for _ in range(100):
        mean = (low + high) / 2
        below = sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count))
        low, high = (mean, high) if below > share else (low, mean)
    return (low + high) / 2


def figures(
    found: Sequence[Outcome], rate: float, nominal_per_week: float, coverage: float, rng: np.random.Generator
) -> dict[str, Any]:
    above, normal = (np.array([getattr(o, name) for o in found], float) for name in ("above", "normal"))
    low, high = bootstrap(above, normal, rng)
    false, weeks = sum(o.false_alarms for o in found), float(normal.sum()) / WEEK_ROWS
    few, many = (bound / weeks for bound in poisson(false))
    leads = [o.lead_h() for o in found]
    there = np.array([h for h in leads if h is not None])
    urgent = [o.lead_h("high") for o in found]
    errors = [o.left_error_h for o in found if o.left_error_h is not None]
    return {
        "runs": len(found),
        "rows_above_threshold": {
            "stated": rate, "measured": float(above.sum() / normal.sum()), "low": low, "high": high,
            "normal_rows": int(normal.sum()), "stated_inside": low <= rate <= high,
        },
        "false_alarms_per_week": {
            "nominal": nominal_per_week, "measured": false / weeks, "low": few, "high": many, "count": false,
            "weeks": round(weeks, 1), "nominal_inside": few <= nominal_per_week <= many,
        },
        "lead_time_h": {
            "alarmed": len(there), "missed": len(found) - len(there), **_spread(there, rng),
            "high_or_critical": _spread(np.array([h for h in urgent if h is not None]), rng),
        },
        "remaining_life": {
            "mean_abs_error_last_week_h": float(np.mean(errors)) if errors else None,
            "interval": coverage,
            "inside": _share([(o.covered, o.answered) for o in found], rng),
            "inside_last_week": _share([(o.covered_last_week, o.answered_last_week) for o in found], rng),
        },
    }  # fmt: skip


def _share(counts: Sequence[tuple[int, int]], rng: np.random.Generator) -> dict[str, float]:
    """Mean over lives of a share of rows, each life once, with its 95 % bootstrap interval."""
    shares = np.array([part / whole for part, whole in counts if whole])
    if not len(shares):
        return {"mean": math.nan, "low": math.nan, "high": math.nan}
    means = shares[rng.integers(0, len(shares), (BOOTSTRAPS, len(shares)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return {"mean": float(shares.mean()), "low": low, "high": high}


def _spread(hours: Floats, rng: np.random.Generator) -> dict[str, float | int]:
    """Median with its 95 % bootstrap interval, least and most."""
    if not len(hours):
        return {"count": 0}
    medians = np.median(hours[rng.integers(0, len(hours), (BOOTSTRAPS, len(hours)))], axis=1)
    return {
        "count": len(hours), "median": round(float(np.median(hours)), 1), "low": round(float(np.quantile(medians, 0.025)), 1),
        "high": round(float(np.quantile(medians, 0.975)), 1), "least": round(float(hours.min()), 1),
        "most": round(float(hours.max()), 1),
    }  # fmt: skip


def measure(
    seeds: Sequence[int], loaded: dict[str, SeriesModel], console: Console, what: str, mode: str = ""
) -> list[Outcome]:
    return [
        follow(data.life(seed, mode), loaded)
        for seed in track(seeds, what, console=console, disable=not console.is_terminal)
    ]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.proofs.lead_time",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=RUNS, help="default: %(default)s")
    parser.add_argument(
        "--nominal", type=int, default=NOMINAL_RUNS, help="other lives, for the nominal rate (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="F", help="write every life and the figures as JSON")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    check_bounds(args, {"runs": (2, MANY), "nominal": (2, MANY)})
    console, loaded = Console(stderr=True), models()
    calibration = loaded["anomaly"].manifest.calibration
    interval = loaded["rul"].manifest.interval
    assert calibration is not None
    assert interval is not None
    other = measure(range(NOMINAL_SEED, NOMINAL_SEED + args.nominal), loaded, console, "nominal rate")
    nominal = sum(o.false_alarms for o in other) / (sum(o.normal for o in other) / WEEK_ROWS)
    found = measure(range(FIRST_SEED, FIRST_SEED + args.runs), loaded, console, "lives")
    result = figures(found, calibration.false_alarm_rate, nominal, interval.coverage, np.random.default_rng(0))
    if args.out:
        args.out.write_text(json.dumps({**result, "lives": [asdict(o) for o in found]}, indent=1) + "\n")
    if args.json:
        print(json.dumps(result))
    else:
        show(result)
    inside = result["rows_above_threshold"]["stated_inside"] and result["false_alarms_per_week"]["nominal_inside"]
    return 0 if inside else 1


def show(r: dict[str, Any]) -> None:
    rows, false, lead, life = (
        r[k] for k in ("rows_above_threshold", "false_alarms_per_week", "lead_time_h", "remaining_life")
    )
    print(f"{r['runs']} lives, {false['weeks']} weeks of normal running of the pump")
    print(
        f"normal rows above the threshold: {rows['measured']:.2e} (95 %: {rows['low']:.2e} to {rows['high']:.2e}), stated "
        f"{rows['stated']:.0e}: {'inside' if rows['stated_inside'] else 'OUTSIDE'}"
    )
    print(
        f"false alarms a week: {false['measured']:.3f} (95 %: {false['low']:.3f} to {false['high']:.3f}), nominal "
        f"{false['nominal']:.3f}: {'inside' if false['nominal_inside'] else 'OUTSIDE'}"
    )
    print(f"lead time: {lead['alarmed']} of {r['runs']} alarmed, {lead['missed']} missed; hours {_line(lead)}")
    print(f"  of the first alarm that is high or critical: hours {_line(lead['high_or_critical'])}")
    print(f"remaining life: mean error in the last week {life['mean_abs_error_last_week_h']:.1f} h")
    print(
        f"  inside the interval of {life['interval']:.0%}, each life once: {_percent(life['inside'])}; in the last week "
        f"{_percent(life['inside_last_week'])}"
    )


def _percent(s: dict[str, float]) -> str:
    return f"{s['mean']:.1%} (95 %: {s['low']:.1%} to {s['high']:.1%})"


def _line(s: dict[str, Any]) -> str:
    if not s["count"]:
        return "none"
    return (
        f"median {s['median']} (95 %: {s['low']} to {s['high']}), least {s['least']}, most {s['most']}, of {s['count']}"
    )


if __name__ == "__main__":
    sys.exit(exit_code("lead_time", lambda: main(sys.argv[1:])))
