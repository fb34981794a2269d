"""A small fleet of real uplinks through the restart of its broker: all back, one after the other, nothing lost.

The embedded broker listens before it serves: who dials in that moment is accepted together with the others, so there the
strict limit is not asked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hil_tests.bench import gudgeon
from tools.chaos.pair import mosquitto

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("broker", ["mosquitto", pytest.param("embedded", marks=pytest.mark.proof)])
def test_a_fleet_comes_back_one_after_the_other(broker: str, tmp_path: Path) -> None:
    if broker == "mosquitto" and mosquitto() is None:
        pytest.skip("Mosquitto is not installed")
    devices, spread_s = (50, 3) if broker == "mosquitto" else (20, 2)
    options = f"--devices {devices} --records 6 --spread-s {spread_s} --down-s 2 --steady-s 1 --workers 2".split()
    embedded = ["--embedded"] if broker == "embedded" else []
    done = gudgeon("fleet", *options, *embedded, "--json", cwd=tmp_path, timeout_s=280)
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert {n: result[n] for n in ("lost", "double", "disordered", "findings")} == dict.fromkeys(
        ("lost", "double", "disordered", "findings"), 0
    ), result
    assert result["produced"] == result["delivered"] == 6 * devices
    assert result["online_in_cloud"] == devices
    assert result["connections"] >= devices
    assert result["back_s"] > spread_s / 2, "they came back over the window, not at once"
    if broker == "mosquitto" and result["emulator"]["late_ms_max"] < 100:  # on a machine that kept up
        assert result["connections_per_s_peak"] <= result["limit"], result
        assert (done.returncode, result["passed"]) == (0, True)
    assert result["connections_per_s_peak"] <= 2 * result["limit"], result
