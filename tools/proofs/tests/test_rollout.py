"""The proof in small: each scenario with a fleet that is quickly through; ten thousand in the slow tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloud.store.opening import open_store
from tools.proofs import rollout
from tools.proofs.rollout import SCENARIOS, Outcome, Scenario

#: a canary of a small fleet is too small to find one device in twenty
FOUND_BY_FEW = [s for s in SCENARIOS if s.name in ("no failures", "30 % fail", "20 % silent")]


def outcome(scenario: Scenario, count: int, folder: Path) -> Outcome:
    engine = open_store(f"sqlite:///{folder / 'cloud.db'}")
    try:
        return rollout.run(engine, scenario, count, seed=1)
    finally:
        engine.dispose()


@pytest.mark.parametrize("scenario", FOUND_BY_FEW, ids=lambda s: s.name)
def test_five_hundred_devices(scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "OVER_HTTP", 2)
    monkeypatch.setattr(rollout, "TICK_S", 30)
    found = outcome(scenario, 500, tmp_path)
    assert found.broken == []
    assert found.exposed >= found.canary // 2, "something was given out"


def test_a_rule_that_does_not_hold_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "OVER_HTTP", 0)
    wrong = Scenario("told wrong", "bad", 0.5, 0.05, "finished")
    found = outcome(wrong, 100, tmp_path)
    assert any("expected finished" in text for text in found.broken)
    assert any("not confirmed it" in text for text in found.broken)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("1 % fail", marks=pytest.mark.proof), "5 % fail, limit 2 %"])
@pytest.mark.timeout(600)
def test_ten_thousand_devices(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rollout.main(["--only", name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[0]
    assert found["devices"] == 10_000
    assert found["broken"] == []
