"""Runtimes and a configuration by a real cloud: signed, assigned, fetched, checked, tried, confirmed by themselves or taken
back, on a device that answers parts."""

from __future__ import annotations

import site
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from cloud.registry import artifacts
from cloud.registry.making import release as sign
from cloud.rollout import store as rollouts
from cloud.rollout.clock import advance
from cloud.rollout.offer import Artifact
from cloud.rollout.plan import Group, Plan
from edge_runtime.update import records
from edge_runtime.update.wake import SOCKET_PATH, wake
from edge_runtime.wire import archive
from edge_runtime.wire.update_status import UpdateState
from hil_tests import runtimes
from hil_tests.bench import Registers, wait_for
from hil_tests.line import Line, line_with_device
from hil_tests.runtimes import Change, Launched, first, instead, launched, runs
from tools.kills.update import DEVICE, CloudHere
from tools.release.main import main as pack

pytestmark = [pytest.mark.slow, pytest.mark.proof, pytest.mark.timeout(300)]
#: the packages of this environment, for releases that bring none; and less patience than on a real device
OTHERS: Change = {
    "__init__.py": lambda text: f"{text}\nimport site as _s, sys as _y\n_y.path += {site.getsitepackages()!r}\n",
    "update/loop_watch.py": instead("HEALTHY_S = 60.0\nDEADLINE_S = 900.0", "HEALTHY_S = 4.0\nDEADLINE_S = 30.0"),
}
HEARTBEAT, HEALTH, NOWHERE = 103, 104, 160


class Fleet:
    """The cloud, and one device on a line."""

    def __init__(self, folder: Path, cloud: CloudHere, line: Line, device: Launched) -> None:
        self.folder, self.cloud, self.line, self.device = folder, cloud, line, device
        self.state_dir, self.number = line.folder / "state", 0

    def runtime(self, version: str, change: Change | None = None) -> str:
        made = runtimes.release(self.folder / version, version, {**OTHERS, **(change or {})})
        out = self.folder / f"{version}.tar"
        archive.pack_file(made, out)
        return self.roll_out("runtime", f"runtime/gudgeon/{version}.tar", out)

    def configuration(self, version: str, content: dict[str, Any]) -> str:
        source, out = self.folder / "config.toml", self.folder / f"c{version}.tar"
        source.write_text(tomli_w.dumps(content))
        assert pack(["config", str(source), "--out", str(out), "--version", version]) == 0
        return self.roll_out("config", f"config/line/{version}.tar", out)

    def roll_out(self, slot_set: str, target: str, file: Path) -> str:
        if self.number:
            wait_for("the end of the rollout before", partial(self.cloud.is_over, self.number), 60)
        self.number += 1
        now, name = datetime.now(UTC), f"r{self.number}"
        made = artifacts.add(self.cloud.registry, file, target, now)
        sign(self.cloud.registry, self.cloud.keys, now)
        artifact = Artifact(target, made.sha256, made.index, tuple(made.hardware))
        rollouts.create(
            self.cloud.engine,
            rollouts.Asked(name, slot_set, artifact, Plan(groups=(Group("all"),))),
            "t",
            time.time_ns(),
        )
        rollouts.start(self.cloud.engine, name, "t", time.time_ns())
        advance(self.cloud.engine, time.time_ns(), self.cloud.assigner)
        wake(self.state_dir / SOCKET_PATH)
        return made.sha256

    def state(self, slot_set: str, sha256: str) -> UpdateState | None:
        record = records.read(self.state_dir, slot_set).record
        return record.state if record.job and record.job.release.sha256 == sha256 else None

    def give_up(self) -> None:
        """The rollout whose device has failed."""
        self.cloud.abort(self.number)

    def wait_for_state(self, slot_set: str, sha256: str, state: UpdateState) -> records.SlotRecord:
        wait_for(f"{slot_set} {state.value}", lambda: self.state(slot_set, sha256) is state, 120)
        return records.read(self.state_dir, slot_set).record

    def wait_for_answers(self, count: int = 3) -> None:
        goal = int(self.line.stats()["answered"]) + count
        wait_for(f"{count} parts answered", lambda: int(self.line.stats()["answered"]) >= goal, 60)


@contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    cloud, work = CloudHere(folder / "cloud"), folder / "line"
    work.mkdir()
    held: list[Launched] = []

    @contextmanager
    def started(config: Path) -> Iterator[None]:
        cloud.enrol(work / "state")
        with launched(config, "--silent-s", "20", "--trial-s", "120", "--stop-s", "8") as one:
            held.append(one)
            yield

    update = {"url": f"https://localhost:{cloud.port}", "poll_s": 2.0, "allow_local": True}
    try:
        change: dict[str, dict[str, Any]] = {"device": {"id": DEVICE}, "update": update}
        with line_with_device(work, 100_000, 10.0, change=change, started_by=started) as line:
            yield Fleet(folder, cloud, line, held[0])
    finally:
        cloud.stop()


def test_runtimes_come_over_the_air_and_bad_ones_go_back(tmp_path: Path) -> None:
    with fleet(tmp_path) as one:
        runtimes.wait_until_runs(one.state_dir, "")
        wait_for("the cloud to hear of the device", (one.state_dir / "run/update.json").exists)
        one.wait_for_answers()

        good = one.runtime("1")
        record = one.wait_for_state("runtime", good, UpdateState.CONFIRMED)
        assert record.confirmed is not None
        assert record.job is not None
        assert record.confirmed.sha256 == good
        assert runs(one.state_dir, good)
        assert record.job.measured["healthy_s"] >= 4
        one.wait_for_answers()

        broken = one.runtime("2", {"control_process.py": first("raise ImportError('a broken release')")})
        record = one.wait_for_state("runtime", broken, UpdateState.REFUSED)
        one.give_up()
        assert record.job is not None
        assert "it says that it cannot run here: ImportError: a broken release" in record.job.reason

        dies = one.runtime(
            "3", {"control_process.py": instead("    stopping = stop_event()\n", "    raise SystemExit(1)\n")}
        )
        record = one.wait_for_state("runtime", dies, UpdateState.ROLLED_BACK)
        one.give_up()
        assert record.job is not None
        assert record.confirmed is not None
        assert "control" in record.job.reason
        assert record.confirmed.sha256 == good
        wait_for("the good one", partial(runs, one.state_dir, good), 60)
        one.wait_for_answers()

        alone = one.runtime("4")
        one.wait_for_state("runtime", alone, UpdateState.TRIAL)
        one.cloud.side.stop()  # the network is lost in the middle of the trial: no failure
        one.wait_for_state("runtime", alone, UpdateState.CONFIRMED)
        assert runs(one.state_dir, alone)
        one.wait_for_answers()
    decisions = one.line.events("decision")
    assert [d["seq"] for d in decisions] == list(range(1, len(decisions) + 1))


def test_a_configuration_comes_over_the_air_and_a_bad_one_goes_back(tmp_path: Path) -> None:
    with fleet(tmp_path) as one:
        runtimes.wait_until_runs(one.state_dir, "")
        wait_for("the cloud to hear of the device", (one.state_dir / "run/update.json").exists)
        quick = one.runtime("1")
        one.wait_for_state("runtime", quick, UpdateState.CONFIRMED)
        wait_for("the quick one", partial(runs, one.state_dir, quick))

        moved = one.configuration("1", {"plc": {"map": {"heartbeat": HEALTH, "health": HEARTBEAT}}})
        one.wait_for_state("config", moved, UpdateState.CONFIRMED)
        plc = Registers(one.line.ports["modbus_port"])
        before = plc.read(HEALTH)[0]
        wait_for("the heartbeat at its new place", lambda: plc.read(HEALTH)[0] != before)
        one.wait_for_answers()

        nowhere = one.configuration("2", {"plc": {"map": {"heartbeat": NOWHERE}}})
        record = one.wait_for_state("config", nowhere, UpdateState.ROLLED_BACK)
        one.give_up()
        assert record.job is not None
        assert record.confirmed is not None
        assert record.confirmed.sha256 == moved
        one.wait_for_answers()

        unknown = one.configuration("3", {"plc": {"map": {"no_such_point": 1}}})
        record = one.wait_for_state("config", unknown, UpdateState.REFUSED)
        one.give_up()
        assert record.job is not None
        assert "unknown key plc.map.no_such_point" in record.job.reason
        one.wait_for_answers()
