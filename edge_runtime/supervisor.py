"""`gudgeon run`: install what the configuration names, then keep the processes of the device alive (`edge_runtime.tasks`).

- A process that dies is started again: at once as a rule, with growing pauses if it dies again and again.
- A process that ends by itself with an exit code of the error tree before it ever ran met something that no restart
  mends (a corrupt bundle, a full disk, a wrong configuration): everything stops with that code and its one line. A disk
  that `link` cannot use is no such thing: the line goes on without it.
- A bundle of an asset that is refused stops nothing: `monitor` tells it and goes on with rules.
- While a model is on trial, a `control` whose engine hangs is ended, and one that ended is followed by the spare (`spare.py`).
- It says on $NOTIFY_SOCKET when everything is started, and that it goes on (systemd and `gudgeon-launch` listen).
- SIGHUP: everything is stopped and begun again, with another configuration where one is on trial.
- This process imports no engine and no protocol; the installation runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from edge_runtime import config, log
from edge_runtime.child import end_with_parent
from edge_runtime.config import DeviceConfig
from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.errors import BundleError, ConfigError, MissingExtraError, ResourceError, UsageError
from edge_runtime.launched import notify
from edge_runtime.spare import Spare
from edge_runtime.tasks import ENVIRONMENT, REFUSED_FILE, STATE_FILE, Task, wanted
from edge_runtime.update import config_trial, given_up, legacy, lock
from edge_runtime.update.config_bundle import VARIABLE

FINAL_CODES = {e.exit_code for e in (UsageError, ConfigError, BundleError, ResourceError, MissingExtraError)}
CHECK_S = 0.05
TRIAL_CHECK_S = 0.01
FREE_RESTARTS = 5
RESTART_WINDOW_S = 10.0
PAUSE_LIMIT_S = 5.0
SETTLED_S = 3.0
ALIVE_S = 2.0


def restart_pause_s(recent: int) -> float:
    """How long to wait before a restart, after `recent` restarts within the window: none at first, then doubling."""
    return 0.0 if recent < FREE_RESTARTS else min(PAUSE_LIMIT_S, 0.25 * 2.0 ** min(recent - FREE_RESTARTS, 10))


@dataclass
class Child:
    task: Task
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    due_s: float = 0.0
    restarts: int = 0
    recent: deque[float] = field(default_factory=deque)


class Supervisor:
    """`spawn` starts one task; it is an argument so that a test can start something else. `spare`: of the task `control`."""

    def __init__(
        self,
        state_dir: Path,
        spawn: Callable[[Task], subprocess.Popen[bytes]],
        tasks: Sequence[Task],
        spare: Spare | None = None,
    ) -> None:
        self._state_dir, self._spawn, self._spare = state_dir, spawn, spare
        self._children = [Child(task) for task in tasks]
        self.stopping = self.again = False
        self._alive_s = float("-inf")

    def run(self) -> int:
        """Until `stopping`; the exit code."""
        code = 0
        while not self.stopping and code == 0:
            for child in self._children:
                code = code or self._watch(child, time.monotonic())
            self._tell_alive(time.monotonic())
            trial = self._spare is not None and self._spare.turn()
            time.sleep(TRIAL_CHECK_S if trial else CHECK_S)
        self._stop()
        return code

    def _watch(self, child: Child, now_s: float) -> int:
        """Start what is due; a code other than 0 ends everything."""
        if child.process is None:
            if now_s >= child.due_s:
                child.process, child.started_s = self._spawn(child.task), now_s
                self._write_state()
            return 0
        spare = self._spare if child.task.name == "control" else None
        reason = spare.hung() if spare else ""
        if reason and child.process.poll() is None:
            child.process.kill()
            child.process.wait()
        code = child.process.poll()
        if code is None:
            return 0
        if spare and (follower := spare.take_over(reason or ended(code))) is not None:
            child.process, child.started_s, child.restarts = follower, now_s, child.restarts + 1
            self._write_state()
            log.say(logging.WARNING, "the spare is control now", code=code, reason=reason)
            return 0
        final = code in FINAL_CODES and (child.task.essential or code != ResourceError.exit_code)
        if final and now_s - child.started_s < SETTLED_S:
            return code
        child.process = None
        child.restarts += 1
        child.recent.append(now_s)
        while child.recent and now_s - child.recent[0] > RESTART_WINDOW_S:
            child.recent.popleft()
        pause_s = restart_pause_s(len(child.recent) - 1)
        child.due_s = now_s + pause_s
        log.say(logging.WARNING, "process ended; starting it again", name=child.task.name, code=code, pause_s=pause_s)
        return 0

    def _tell_alive(self, now_s: float) -> None:
        if now_s - self._alive_s >= ALIVE_S:
            notify("READY=1\nWATCHDOG=1" if self._alive_s < 0 else "WATCHDOG=1")
            self._alive_s = now_s

    def _stop(self) -> None:
        if self._spare is not None:
            self._spare.stop()
        for child in self._children:
            if child.process is None or child.process.poll() is not None:
                continue
            child.process.terminate()
            try:
                child.process.wait(child.task.stop_s)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()

    def _write_state(self) -> None:
        """`run/processes.json`: name → pid and restarts. For people and tests; best effort."""
        state = {c.task.name: {"pid": c.process.pid, "restarts": c.restarts} for c in self._children if c.process}
        path = self._state_dir / STATE_FILE
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(state))
            temporary.replace(path)
        except OSError as error:
            log.say(logging.WARNING, "state not written", path=str(path), reason=str(error))


def ended(code: int) -> str:
    return f"it ended with signal {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"


def spawn_task(config_path: Path) -> Callable[[Task], subprocess.Popen[bytes]]:
    return lambda task: _start(task, config_path)


def spawn_spare(config_path: Path, tasks: Sequence[Task]) -> Callable[[], subprocess.Popen[bytes]] | None:
    """How to start the spare of `control`; None where there is no `control`."""
    task = next((task for task in tasks if task.name == "control"), None)
    return None if task is None else lambda: _start(task, config_path, "--spare")


def _start(task: Task, config_path: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", task.module, "--config", str(config_path), *more],
        stdin=subprocess.PIPE if more else subprocess.DEVNULL,
        env={**os.environ, **ENVIRONMENT},
        start_new_session=True,
        preexec_fn=end_with_parent,
    )


def install_assets(device: DeviceConfig, config_path: Path) -> dict[str, str]:
    """Install the bundles of the assets; slot set → why one was refused."""
    refused = {}
    for asset in device.assets:
        for slot_set, path in asset.slot_sets.items():
            done = subprocess.run(
                install_command(path, config_path, slot_set),
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                check=False,
            )
            if done.returncode:
                lines = done.stderr.strip().splitlines()
                reason = lines[-1][-500:] if lines else f"gudgeon install ended with exit code {done.returncode}"
                log.say(logging.ERROR, "the bundle of an asset was refused", slot_set=slot_set, reason=reason)
                refused[slot_set] = reason
    return refused


def install_command(bundle: Path, config_path: Path, slot_set: str) -> list[str]:
    command = [sys.executable, "-m", "edge_runtime.update.install", str(bundle), "--config", str(config_path)]
    return [*command, "--slot-set", slot_set, "--at-start"]


def install_configured(device: DeviceConfig, config_path: Path) -> int:
    """Install the bundles of the line that the configuration names; the first exit code that is not 0."""
    wanted = {"default": device.bundle.path, "shadow": device.bundle.shadow}
    wanted |= {f"recipe-{code}": config_path.parent / path for code, path in device.bundle.recipes.items()}
    for slot_set, path in wanted.items():
        if path is None:
            continue
        done = subprocess.run(install_command(path, config_path, slot_set), stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            return done.returncode
    return 0


def migrate(state_dir: Path) -> None:
    """Slot folders of an earlier version, moved where there is room; else they run from where they are."""
    try:
        if legacy.slot_sets(state_dir):
            with lock.writing(state_dir):
                log.say(logging.INFO, "slots moved into the store", slot_sets=legacy.migrate(state_dir))
    except ResourceError as error:
        log.say(logging.WARNING, "slots not moved into the store", reason=str(error))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gudgeon run", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="device.toml")
    args = parser.parse_args(argv)
    state_dir = config.load(args.config, DeviceConfig).device.state_dir
    with disk_errors(state_dir):
        (state_dir / "run").mkdir(parents=True, exist_ok=True)
    replace_file(state_dir / STATE_FILE, b"{}")  # says at once, and once, that the disk is full
    log.setup("supervisor", state_dir / "log")
    given_up.write_down(state_dir, os.environ.get(given_up.VARIABLE, ""), time.time_ns())
    os.environ[VARIABLE] = str(config_trial.begin(state_dir, time.time_ns()) or "")
    device = config.load_device(args.config)
    tasks = wanted(device.has_line, device.has_sensors, device.update.takes or bool(device.identity.url))
    spare_of = spawn_spare(args.config, tasks)
    spare = Spare(state_dir, spare_of) if spare_of else None
    supervisor = Supervisor(state_dir, spawn_task(args.config), tasks, spare)

    def stop(number: int, frame: FrameType | None) -> None:
        supervisor.stopping = True
        supervisor.again = number == signal.SIGHUP

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    migrate(state_dir)
    code = install_configured(device, args.config)
    if device.assets and not code:
        refused = install_assets(device, args.config)
        replace_file(state_dir / REFUSED_FILE, json.dumps(refused).encode())
    code = code or supervisor.run()
    if supervisor.again and not code:
        os.execv(sys.executable, [sys.executable, "-m", "edge_runtime.cli", "run", "--config", str(args.config)])  # noqa: S606
    return code
