"""The gates of a runtime and of a configuration, and what makes a local loop healthy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.errors import EndpointError, ResourceError
from edge_runtime.processes import Process, Seen
from edge_runtime.tests.releases import SHA_A, release, small, wheel
from edge_runtime.update import environment, runtime_gate
from edge_runtime.update.config_bundle import VARIABLE
from edge_runtime.update.gate import Candidate, Verdict
from edge_runtime.update.loop_watch import DEADLINE_S, FRESH_S, HEALTHY_S, LoopWatch
from edge_runtime.update.runtime_gate import NOT_STARTED_S, RUNTIME_VARIABLE, ConfigGate, RuntimeGate, self_check
from edge_runtime.wire.envelope import Event

SEEN = Seen(1.0, 1, 1.0)
BOOT = "boot"


class Plant:
    """A device as the watch sees it; `control` tells once a second while `turning`."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.processes: dict[str, Process] = {
            name: Process(0, SEEN) for name in ("control", "monitor", "link", "update")
        }
        self.body: dict[str, object] = {"health": "nominal", "answered": 5}
        self.turning, self.boot, self.broken = True, BOOT, False
        self.event: Event | None = None
        self.watch = LoopWatch(("control", "link"), lambda: self.processes, self, BOOT, self.clock)

    def last(self, stream: str) -> Event | None:
        assert stream == "metric"
        if self.broken:
            raise ResourceError("the disk is full")
        return self.event

    def go(self, seconds: float, step_s: float = 1.0) -> Verdict | None:
        """Looks after each second; the first verdict."""
        for _ in range(round(seconds / step_s)):
            self.clock.advance(step_s)
            if self.turning:
                now_ns = self.clock.monotonic_ns()
                self.event = Event("d", "c", "metric", 1, self.boot, "control", now_ns, 0, None, "", self.body)
            if (verdict := self.watch.look()) is not None:
                return verdict
        return None

    def restart(self, name: str, count: int) -> None:
        self.processes[name] = Process(count, SEEN)


def test_a_loop_that_turns_for_long_enough_passes() -> None:
    plant = Plant()
    assert plant.go(HEALTHY_S - 5) is None
    verdict = plant.go(10)
    assert verdict is not None
    assert verdict.ok
    assert (verdict.measured["parts"], verdict.measured["restarts"]) == (5.0, 0.0)


def stop(plant: Plant) -> None:
    plant.turning = False


def other_boot(plant: Plant) -> None:
    plant.boot = "before"


def gone(plant: Plant) -> None:
    del plant.processes["link"]


def ended(plant: Plant) -> None:
    plant.processes["control"] = Process(0, None)


def full(plant: Plant) -> None:
    plant.broken = True


TROUBLE: Mapping[str, tuple[Callable[[Plant], object], str]] = {
    "the loop stands, or the PLC is gone": (stop, "control has told nothing"),
    "told before this boot": (other_boot, "control has told nothing"),
    "a process is not there": (gone, "link does not run"),
    "a process has ended": (ended, "control does not run"),
    "the outbox cannot be read": (full, "the outbox cannot be read: the disk is full"),
    "no model": (lambda p: p.body.update(health="safe"), "cannot judge parts"),
    "records wait for the disk": (lambda p: p.body.update(records_waiting=3), "records cannot be stored"),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_until_the_deadline_fails(name: str) -> None:
    trouble, told = TROUBLE[name]
    plant = Plant()
    assert plant.go(HEALTHY_S / 2) is None
    trouble(plant)
    verdict = plant.go(DEADLINE_S + 1)
    assert verdict is not None
    assert not verdict.ok
    assert told in verdict.reason


def test_trouble_that_passes_costs_only_time() -> None:
    plant = Plant()
    plant.turning = False
    assert plant.go(FRESH_S * 3) is None
    plant.turning = True
    assert plant.go(HEALTHY_S - 5) is None
    verdict = plant.go(10)
    assert verdict is not None
    assert verdict.ok


def test_a_degraded_device_without_a_cloud_is_healthy() -> None:
    plant = Plant()
    plant.body["health"] = "degraded"  # the camera; link runs, whatever it reaches
    verdict = plant.go(HEALTHY_S + 5)
    assert verdict is not None
    assert verdict.ok


def test_restarts_begin_the_time_anew_and_too_many_fail_at_once() -> None:
    plant = Plant()
    assert plant.go(HEALTHY_S - 5) is None
    plant.restart("link", 1)
    assert plant.go(HEALTHY_S - 5) is None
    plant.restart("link", 3)
    verdict = plant.go(1)
    assert verdict is not None
    assert (verdict.ok, verdict.reason) == (False, "its processes ended 3 times: link")


def test_a_plc_that_is_lost_again_and_again_is_no_health() -> None:
    """Its loop turns in between, and it may even answer parts."""
    plant = Plant()
    verdict = None
    for count in range(round(DEADLINE_S / 10) + 1):
        plant.body["plc_lost"] = count
        verdict = verdict or plant.go(10)
    assert verdict is not None
    assert not verdict.ok
    assert "it lost the PLC" in verdict.reason


# ── the gate of a runtime ───────────────────────────────────────────────────────────────────────────────────────────────

CHECKS = {"edge_runtime/__init__.py": "", "edge_runtime/update/__init__.py": ""}
CHECK = "edge_runtime/update/self_check.py"


class Rig:
    def __init__(self, folder: Path, script: str = "import sys; assert '--config' in sys.argv") -> None:
        self.folder, self.clock = folder, FakeClock()
        self.plant = Plant()
        wheel(folder / "r", "thing", {**CHECKS, CHECK: script})
        self.candidate = Candidate("runtime", release(folder / "r"), "d", SHA_A)
        self.gate = RuntimeGate(folder / "state", folder / "device.toml", lambda: self.plant.watch, self.clock)


@pytest.fixture(autouse=True)
def _launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNTIME_VARIABLE, "")
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_check_makes_the_environment_and_asks_the_release_itself(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    assert rig.gate.check(rig.candidate) == Verdict(True)
    assert environment.problem(tmp_path / "state/runtimes" / SHA_A) == ""


BAD = [
    ("raise ImportError('no such thing')", "it says that it cannot run here: ImportError: no such thing"),
    ("import sys; sys.exit(9)", "it says that it cannot run here: exit code 9"),
    ("import os; os.kill(os.getpid(), 11)", "it says that it cannot run here: exit code -11"),
]


@pytest.mark.parametrize(("script", "told"), BAD, ids=["import", "exit", "signal"])
def test_a_release_that_cannot_start_never_gets_as_far_as_a_trial(script: str, told: str, tmp_path: Path) -> None:
    rig = Rig(tmp_path, script)
    verdict = rig.gate.check(rig.candidate)
    assert not verdict.ok
    assert verdict.reason == told


def test_what_does_not_answer_is_ended(tmp_path: Path) -> None:
    made = environment.make(Rig(tmp_path, "import time; time.sleep(1000)").candidate.path, tmp_path / "e", SHA_A)
    verdict = self_check(made / "bin/python", tmp_path, timeout_s=0.5)
    assert verdict.reason.startswith("it did not answer within 0.5 s")
    assert not self_check(tmp_path / "none", tmp_path).ok


def test_other_reasons_to_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    old = Candidate("runtime", small(tmp_path / "old", outbox=1), "d", SHA_A)
    assert rig.gate.check(old).reason.startswith("it writes outbox format 1")
    other = Candidate("runtime", small(tmp_path / "other", machine="vax"), "d", SHA_A)
    assert "it is for vax" in rig.gate.check(other).reason
    monkeypatch.setattr(environment, "make", full_disk)
    with pytest.raises(EndpointError, match="full"):
        rig.gate.check(rig.candidate)
    monkeypatch.delenv(RUNTIME_VARIABLE)
    assert rig.gate.check(rig.candidate).reason.startswith("this device was not started by gudgeon-launch")


def full_disk(*args: object) -> None:
    raise ResourceError("the disk is full")


def test_the_runtime_itself_watches_its_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    rig.gate.begin(rig.candidate)
    assert rig.gate.trial(rig.candidate) is None  # still the old one
    monkeypatch.setenv(RUNTIME_VARIABLE, SHA_A)
    assert rig.gate.trial(rig.candidate) is None
    rig.plant.go(HEALTHY_S + 5)
    verdict = rig.gate.trial(rig.candidate)
    assert verdict is not None
    assert verdict.ok


def test_a_candidate_that_is_never_started_fails(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    assert rig.gate.trial(rig.candidate) is None
    rig.clock.advance(NOT_STARTED_S + 1)
    verdict = rig.gate.trial(rig.candidate)
    assert verdict is not None
    assert "was not started within" in verdict.reason


# ── the gate of a configuration ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_configuration_is_loaded_before_it_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_runtime import config
    from edge_runtime.update.config_bundle import read_overlay
    from edge_runtime.update.tests.test_config_bundle import DEVICE
    from edge_runtime.update.tests.test_config_bundle import release as configuration

    device = tmp_path / "device.toml"
    device.write_text(DEVICE)
    restarts: list[int] = []
    clock = FakeClock()
    gate = ConfigGate(
        lambda folder: config.with_overlay(device, read_overlay(folder / "config.toml")),
        lambda: restarts.append(1),
        lambda: Plant().watch,
        clock,
    )
    good = Candidate("config", configuration(tmp_path / "good"), "d", SHA_A)
    bad = Candidate("config", configuration(tmp_path / "bad", "[plc.map]\nnone = 1\n"), "d", SHA_A)
    own = Candidate("config", configuration(tmp_path / "own", "[device]\nid = 'x'\n"), "d", SHA_A)
    assert gate.check(good) == Verdict(True)
    assert "unknown key plc.map.none" in gate.check(bad).reason
    assert "the device's own" in gate.check(own).reason
    gate.begin(good)
    assert gate.trial(good) is None
    monkeypatch.setenv(VARIABLE, str(good.path))
    gate.begin(good)  # it runs already
    assert restarts == [1]
    assert gate.trial(good) is None
    gate.revert(None)
    monkeypatch.setenv(VARIABLE, "")
    gate.revert(None)
    assert restarts == [1, 1]


def test_this_runtime_can_run_here(tmp_path: Path) -> None:
    (tmp_path / "device.toml").write_text('[device]\nid = "d"\nstate_dir = "s"\n')
    assert self_check(Path(sys.executable), tmp_path / "device.toml") == Verdict(True)
    (tmp_path / "device.toml").write_text("[device]\n")
    assert "missing key device.id" in self_check(Path(sys.executable), tmp_path / "device.toml").reason
    assert runtime_gate.CHECK_S > 0
