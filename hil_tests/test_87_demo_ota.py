"""`gudgeon demo ota` as a user runs it: a better model reaches the fleet, a bad one gets no further than the canary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hil_tests.bench import gudgeon


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(600)
def test_a_better_model_reaches_the_fleet_and_a_bad_one_the_canary_only(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = gudgeon("demo", "ota", "--report", report, "--keep", tmp_path / "kept", cwd=tmp_path, timeout_s=580)
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(report.read_text())
    better, bad = found["rollouts"]["better"], found["rollouts"]["bad"]
    assert (better["state"], better["exposed"]) == ("finished", 20)
    assert better["confirmed"] >= 18
    assert (bad["state"], bad["confirmed"]) == ("aborted", 0)
    assert bad["exposed"] <= 4
    assert found["running_after"].get("bad", 0) == 0
    assert found["bad_ended_as"].get("rolled_back", 0) >= 1
    assert "bad" not in found["line"], "it never answered a part"
    assert found["line"]["better"]["recall"] > found["line"]["cautious"]["recall"]
