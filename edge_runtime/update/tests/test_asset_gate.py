"""The gate of what `monitor` runs: golden vectors in a process of their own, and a trial in the running monitor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_runtime.errors import BundleError, EndpointError
from edge_runtime.monitor_process import slot_of, tell_models
from edge_runtime.tasks import STATE_FILE
from edge_runtime.tests.series_bundles import make_series_bundle
from edge_runtime.update import legacy, records, states
from edge_runtime.update.asset_gate import MODELS_FILE, SOAK_S, TAKEN_S, AssetGate
from edge_runtime.update.gate import Candidate
from edge_runtime.update.records import Job, Release, SlotRecord
from edge_runtime.update.store import Store, address
from edge_runtime.wire import manifest
from edge_runtime.wire.update_status import UpdateState

SET = "asset-pump-anomaly"


class Time:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUDGEON_HOME", str(tmp_path / "home"))
    (tmp_path / "state" / "run").mkdir(parents=True)
    return tmp_path / "state"


def candidate_of(bundle: Path) -> Candidate:
    return Candidate(SET, bundle, manifest.digest((bundle / manifest.MANIFEST).read_bytes()), address(bundle))


def restarts(state: Path, count: int) -> None:
    (state / STATE_FILE).write_text(json.dumps({"monitor": {"pid": 1, "restarts": count}}))


def test_golden_vectors_are_run_in_a_process_of_their_own(state: Path, tmp_path: Path) -> None:
    gate = AssetGate(state, "reference")
    verdict = gate.check(candidate_of(make_series_bundle(tmp_path / "good")))
    assert (verdict.ok, verdict.reason) == (True, "")
    assert verdict.measured["p99_ms"] > 0
    assert verdict.measured["golden"] >= 1
    broken = tmp_path / "broken"
    broken.mkdir()
    verdict = gate.check(Candidate(SET, broken, "d" * 64, "a" * 64))
    assert not verdict.ok
    assert "manifest.toml is missing" in verdict.reason


def test_the_trial_passes_when_monitor_has_run_it_for_a_while(state: Path) -> None:
    clock = Time()
    gate, candidate, tell = (
        AssetGate(state, "auto", clock),
        Candidate(SET, state, "d" * 64, "a" * 64),
        tell_models(state / MODELS_FILE),
    )
    restarts(state, 2)
    gate.begin(candidate)
    assert gate.trial(candidate) is None
    tell(SET, candidate.digest, "")
    assert gate.trial(candidate) is None
    clock.now_s += SOAK_S
    verdict = gate.trial(candidate)
    assert verdict
    assert verdict.ok


def test_what_monitor_refuses_or_dies_of_fails_and_what_it_never_takes_blames_nobody(state: Path) -> None:
    clock = Time()
    gate, candidate = AssetGate(state, "auto", clock), Candidate(SET, state, "d" * 64, "a" * 64)
    restarts(state, 0)
    gate.begin(candidate)
    tell_models(state / MODELS_FILE)(SET, candidate.digest, "no such tag")
    verdict = gate.trial(candidate)
    assert verdict
    assert (verdict.ok, verdict.reason) == (False, "no such tag")
    restarts(state, 1)
    verdict = gate.trial(candidate)
    assert verdict
    assert (verdict.ok, verdict.reason) == (False, "monitor ended while it ran this bundle")
    (state / MODELS_FILE).unlink()
    gate.begin(candidate)
    clock.now_s += TAKEN_S + 1
    with pytest.raises(EndpointError, match="has not taken"):
        gate.trial(candidate)


def test_monitor_begins_with_what_is_confirmed_and_then_takes_the_candidate(state: Path, tmp_path: Path) -> None:
    releases = []
    for seed in (1, 2):
        bundle = make_series_bundle(tmp_path / str(seed), version=str(seed))
        found = candidate_of(bundle)
        Store(state).put(found.sha256, lambda into, source=bundle: legacy.copy(source, into))  # type: ignore[misc]
        releases.append(Release(found.sha256, found.digest, f"models/pump/{seed}.tar", seed))
    old, new = releases
    record = states.staged(states.take(SlotRecord(UpdateState.CONFIRMED, confirmed=old), Job(new, tries_left=2)))
    records.write(state, SET, states.try_once(record))
    slot = slot_of(state, "reference")
    assert slot(SET).digest == old.digest
    again = slot(SET)
    assert (again.digest, again.load().digest) == (new.digest, new.digest)
    file = Store(state).path(new.sha256) / "model.fp32.onnx"
    file.chmod(0o644)
    file.write_bytes(b"rot")
    with pytest.raises(BundleError, match="is damaged"):
        slot(SET).load()
    records.write(state, SET, states.confirm(states.try_once(record)))
    assert slot(SET).digest == new.digest
