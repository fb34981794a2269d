"""The supervisor over small stand-in processes: restarts, final exit codes, order of stopping."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge_runtime import supervisor as module
from edge_runtime.supervisor import Supervisor, restart_pause_s
from edge_runtime.tasks import TASKS, Task, wanted
from edge_runtime.tests.waiting import PATIENCE_S, until

FOREVER = "import time; time.sleep(1000)"


class Stage:
    """Starts stand-ins: `scripts[name]` are run one after the other, the last one again and again."""

    def __init__(self, **scripts: list[str]) -> None:
        self.scripts = scripts
        self.started: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def spawn(self, task: Task) -> subprocess.Popen[bytes]:
        count = self.started.count(task.name)
        self.started.append(task.name)
        scripts = self.scripts.get(task.name, [FOREVER])
        process = subprocess.Popen([sys.executable, "-S", "-c", scripts[min(count, len(scripts) - 1)]])
        self.processes.append(process)
        return process


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_S", 0.005)


def state_dir(folder: Path) -> Path:
    (folder / "run").mkdir()
    return folder


def test_a_process_that_dies_is_started_again_and_counted(tmp_path: Path) -> None:
    stage = Stage(control=["import os; os.kill(os.getpid(), 9)", FOREVER])
    supervisor = Supervisor(state_dir(tmp_path), stage.spawn, wanted(has_line=True, has_sensors=False))
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    file = tmp_path / "run/processes.json"
    until(lambda: stage.started.count("control") == 2 and json.loads(file.read_text())["control"]["restarts"] == 1)
    state = json.loads(file.read_text())
    supervisor.stopping = True
    thread.join(PATIENCE_S)
    assert (state["control"]["restarts"], state["link"]["restarts"]) == (1, 0)
    assert state["control"]["pid"] == stage.processes[-1].pid
    assert all(p.poll() is not None for p in stage.processes)


@pytest.mark.parametrize("code", [3, 4, 6, 7])
def test_a_final_exit_code_ends_everything_with_it(tmp_path: Path, code: int) -> None:
    stage = Stage(control=[f"raise SystemExit({code})"])
    assert Supervisor(state_dir(tmp_path), stage.spawn, wanted(has_line=True, has_sensors=False)).run() == code
    assert stage.started == ["control", "link"]
    assert all(p.poll() is not None for p in stage.processes)


@pytest.mark.parametrize("code", [0, 1, 5])
def test_other_exit_codes_are_no_reason_to_stop(tmp_path: Path, code: int) -> None:
    stage = Stage(link=[f"raise SystemExit({code})", "raise SystemExit(4)"])
    assert Supervisor(state_dir(tmp_path), stage.spawn, wanted(has_line=True, has_sensors=False)).run() == 4
    assert stage.started == ["control", "link", "link"]


def test_pauses_grow_only_when_it_dies_again_and_again() -> None:
    pauses = [restart_pause_s(n) for n in range(12)]
    assert pauses[:5] == [0.0] * 5
    assert pauses[5:] == sorted(pauses[5:])
    assert 0 < pauses[5] < pauses[-1] == module.PAUSE_LIMIT_S


def test_control_is_stopped_before_link() -> None:
    assert [t.name for t in TASKS] == ["control", "monitor", "update", "link"]


def test_a_disk_that_link_cannot_use_stops_nothing(tmp_path: Path) -> None:
    stage = Stage(link=["raise SystemExit(6)", "raise SystemExit(6)", FOREVER])
    supervisor = Supervisor(state_dir(tmp_path), stage.spawn, wanted(has_line=True, has_sensors=False))
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(supervisor.run()))
    thread.start()
    until(lambda: stage.started.count("link") == 3)
    supervisor.stopping = True
    thread.join(PATIENCE_S)
    assert codes == [0]
    assert stage.started.count("control") == 1
