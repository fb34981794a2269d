"""The proof of lead time: its statistics against known values, and two lives through the shipped bundles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_runtime.update import keyring
from edge_runtime.update.install import verify_signature
from tools.pdm.pump import data
from tools.proofs import lead_time
from tools.proofs.lead_time import Outcome, Told, bootstrap, figures, follow, models, poisson


@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0.0, 3.689), (1, 0.0253, 5.572), (5, 1.623, 11.668), (50, 37.11, 65.92)]
)
def test_poisson_intervals_are_the_tabled_ones(count: int, low: float, high: float) -> None:
    assert list(poisson(count)) == pytest.approx([low, high], abs=0.01)


def test_a_bootstrap_over_lives_is_as_wide_as_the_lives_differ() -> None:
    rng = np.random.default_rng(0)
    whole = np.full(50, 100.0)
    low, high = bootstrap(np.full(50, 5.0), whole, rng)
    assert low == high == 0.05
    low, high = bootstrap(np.where(np.arange(50) < 5, 50.0, 0.0), whole, rng)
    assert low < 0.02
    assert high > 0.08


def life(seed: int, *alarms: Told, above: int = 0) -> Outcome:
    return Outcome(seed, "outer", 100.0, 200.0, above, 90, alarms, 80, 100, 30, 50, 10.0)


def test_what_is_false_early_late_and_missed() -> None:
    first = life(1, Told("anomaly", "low", 50), Told("anomaly", "low", 120), Told("remaining", "high", 150), above=9)
    found = [first, life(2, Told("anomaly", "low", 200)), life(3, Told("anomaly", "critical", 190))]
    assert first.lead_h() == 80.0
    assert first.lead_h("high") == 50.0
    result = figures(found, 0.03, 0.5, 0.9, np.random.default_rng(0))
    assert result["false_alarms_per_week"]["count"] == 1
    assert result["lead_time_h"]["missed"] == 1
    assert result["lead_time_h"]["least"] == 10.0
    assert result["rows_above_threshold"]["measured"] == pytest.approx(9 / 270)
    assert result["rows_above_threshold"]["stated_inside"]
    assert result["false_alarms_per_week"]["nominal_inside"]
    assert result["remaining_life"]["inside"] == pytest.approx({"mean": 0.8, "low": 0.8, "high": 0.8})
    assert result["remaining_life"]["inside_last_week"]["mean"] == pytest.approx(0.6)


def test_the_shipped_bundles_are_signed_by_the_packaged_key(tmp_path: Path) -> None:
    keys = keyring.trusted_keys(tmp_path)
    for kind in ("anomaly", "rul"):
        assert verify_signature(lead_time.BUNDLES / kind, keys)


def test_a_life_ends_with_an_alarm_and_a_sound_pump_without() -> None:
    loaded = models()
    worn = follow(data.life(2008, "outer"), loaded)  # a short one
    assert worn.lead_h() is not None
    assert worn.answered > 100
    sound = follow(data.life(2002, "none", days=5), loaded)
    assert sound.alarms == ()
    assert sound.normal > 100
