"""The spare of `control`, over small stand-in processes: it follows one that dies or hangs on trial, and nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.decide import engine_watch
from edge_runtime.decide.engine_watch import EngineWatch
from edge_runtime.decide.trial_files import READY, WANT
from edge_runtime.spare import Spare
from edge_runtime.supervisor import Supervisor
from edge_runtime.tasks import Task, wanted
from edge_runtime.tests.waiting import PATIENCE_S, until

FOREVER = "import time; time.sleep(1000)"
SPARE = """
import pathlib, sys, time
pathlib.Path("run/spare.ready").touch()
line = sys.stdin.readline()
pathlib.Path("took over").write_text(line)
time.sleep(1000)
"""


class Device:
    """A supervisor in a thread; `control` is what `script` says, its spare a script that writes why it took over."""

    def __init__(self, folder: Path, script: str = FOREVER) -> None:
        self.folder = folder
        (folder / "run").mkdir()
        self.scripts = [script, FOREVER]
        self.started: list[subprocess.Popen[bytes]] = []
        self.spares: list[subprocess.Popen[bytes]] = []
        spare = Spare(folder, self._spawn_spare)
        self.supervisor = Supervisor(folder, self._spawn, wanted(has_line=True, has_sensors=False), spare)
        self.thread = threading.Thread(target=self.supervisor.run)

    def _spawn(self, task: Task) -> subprocess.Popen[bytes]:
        if task.name != "control":
            return self._start(FOREVER)
        self.started.append(self._start(self.scripts[min(len(self.started), 1)]))
        return self.started[-1]

    def _spawn_spare(self) -> subprocess.Popen[bytes]:
        self.spares.append(self._start(SPARE))
        return self.spares[-1]

    def _start(self, script: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-S", "-c", script], cwd=self.folder, stdin=subprocess.PIPE)

    def want_spare(self) -> None:
        (self.folder / "run" / WANT).touch()
        until((self.folder / "run" / READY).exists)

    @property
    def state(self) -> dict[str, int]:
        found: dict[str, int] = json.loads((self.folder / "run/processes.json").read_text())["control"]
        return found

    def took_over(self) -> str:
        file = self.folder / "took over"
        until(lambda: file.exists() and file.read_text())
        return file.read_text()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path)
    device.thread.start()
    until(lambda: device.started)
    yield device
    device.supervisor.stopping = True
    device.thread.join(PATIENCE_S)
    assert all(p.poll() is not None for p in device.started + device.spares)


def test_a_control_that_dies_is_followed_by_its_spare(device: Device) -> None:
    device.want_spare()
    device.started[0].kill()
    assert device.took_over() == "it ended with signal SIGKILL\n"
    until(lambda: device.state == {"pid": device.spares[0].pid, "restarts": 1})
    assert len(device.started) == 1


def test_one_whose_engine_hangs_is_ended_and_followed(device: Device) -> None:
    watch = EngineWatch(device.folder / engine_watch.PATH, time.monotonic_ns)
    watch.limit(50)
    device.want_spare()
    assert device.started[0].poll() is None
    with watch:
        assert device.took_over().startswith("the engine hung for ")
    assert device.started[0].poll() == -9
    until(lambda: device.state["pid"] == device.spares[0].pid)
    assert device.spares[0].poll() is None, "what the one before left there does not end its follower"


def test_after_the_trial_the_spare_goes_and_nobody_else_follows(device: Device) -> None:
    device.want_spare()
    (device.folder / "run" / WANT).unlink()
    until(lambda: device.spares[0].poll() is not None)
    device.started[0].kill()
    until(lambda: len(device.started) == 2)
    assert not (device.folder / "took over").exists()


def test_a_spare_that_is_not_ready_is_no_follower(tmp_path: Path) -> None:
    spare_of = [sys.executable, "-S", "-c", FOREVER]
    (tmp_path / "run").mkdir()
    spare = Spare(tmp_path, lambda: subprocess.Popen(spare_of, stdin=subprocess.PIPE))
    (tmp_path / "run" / WANT).touch()
    assert spare.turn()
    assert spare.take_over("it ended") is None
    spare.stop()
