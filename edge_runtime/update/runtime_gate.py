"""The gates of what the whole device is started with: a runtime release, and a configuration.

Neither is switched by the updater. It writes the record; who starts the device reads it: `gudgeon-launch` for the runtime (it
looks all the time), the supervisor for the configuration (it is asked to begin again). Each spends a try on the disk before it
starts a trial, and goes back by itself when none is left. So the trial of a candidate is watched by the updater that the
candidate started: what cannot even run its updater is never confirmed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from edge_runtime.boot import boot_id
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.config import DeviceConfig, with_overlay
from edge_runtime.errors import BundleError, ConfigError, EndpointError, ResourceError
from edge_runtime.outbox import schema
from edge_runtime.outbox.opening import open_outbox
from edge_runtime.processes import processes
from edge_runtime.tasks import wanted
from edge_runtime.update import environment, records
from edge_runtime.update.config_bundle import VARIABLE, read_config_release, read_overlay
from edge_runtime.update.gate import Candidate, Verdict
from edge_runtime.update.loop_watch import LoopWatch
from edge_runtime.wire.release import CONFIG_FILE

RUNTIME_VARIABLE = "GUDGEON_RUNTIME"
CHECK_S = 300.0
NOT_STARTED_S = 600.0

#: begins to watch the loop now
Watch = Callable[[], LoopWatch]


class StartedGate:
    """What both have in common: the trial. Their `runs`: is the candidate what this process was started with?"""

    def __init__(self, watch: Watch, clock: Clock) -> None:
        self._watch, self._clock = watch, clock
        self._watched: tuple[str, LoopWatch] | None = None
        self._waiting: tuple[str, int] | None = None

    def runs(self, candidate: Candidate) -> bool:
        raise NotImplementedError

    def trial(self, candidate: Candidate) -> Verdict | None:
        if self.runs(candidate):
            if self._watched is None or self._watched[0] != candidate.sha256:
                self._watched = (candidate.sha256, self._watch())
            return self._watched[1].look()
        now_ns = self._clock.monotonic_ns()
        if self._waiting is None or self._waiting[0] != candidate.sha256:
            self._waiting = (candidate.sha256, now_ns)
        if now_ns - self._waiting[1] > NOT_STARTED_S * 1e9:
            return Verdict(False, f"it was not started within {NOT_STARTED_S:g} s; see run/launcher.json")
        return None


class RuntimeGate(StartedGate):
    """`config`: the device's file, which the candidate must be able to read, too."""

    def __init__(self, state_dir: Path, config: Path, watch: Watch, clock: Clock) -> None:
        self._state_dir, self._config = state_dir, config
        super().__init__(watch, clock)

    def runs(self, candidate: Candidate) -> bool:
        return os.environ.get(RUNTIME_VARIABLE) == candidate.sha256

    def check(self, candidate: Candidate) -> Verdict:
        """Its environment is made, and it says in a process of its own that it can read this device's configuration."""
        if RUNTIME_VARIABLE not in os.environ:
            return Verdict(False, "this device was not started by gudgeon-launch, so that no other runtime can be")
        try:
            manifest = environment.read_release(candidate.path)
            if manifest.outbox < schema.VERSION:
                return Verdict(False, f"it writes outbox format {manifest.outbox}, this device has {schema.VERSION}")
            keep = records.read(self._state_dir, candidate.slot_set).record.named | {os.environ[RUNTIME_VARIABLE]}
            environment.sweep(self._state_dir / environment.FOLDER, [*keep, candidate.sha256])
            made = environment.make(candidate.path, self._state_dir / environment.FOLDER, candidate.sha256)
        except BundleError as error:
            return Verdict(False, str(error))
        except ResourceError as error:
            raise EndpointError(str(error)) from error  # the disk's, not the candidate's: later
        return self_check(made / "bin/python", self._config)

    def begin(self, candidate: Candidate) -> None:
        """The launcher sees the record."""

    def revert(self, to: Candidate | None) -> None:
        """The launcher sees the record."""


class ConfigGate(StartedGate):
    """`check_config`: loads the device's file with this folder's configuration over it; ConfigError where they do not fit.
    `restart`: has the supervisor begin again."""

    def __init__(
        self, check_config: Callable[[Path], object], restart: Callable[[], None], watch: Watch, clock: Clock
    ) -> None:
        self._check_config, self._restart = check_config, restart
        super().__init__(watch, clock)

    def runs(self, candidate: Candidate) -> bool:
        return os.environ.get(VARIABLE) == str(candidate.path)

    def check(self, candidate: Candidate) -> Verdict:
        try:
            read_config_release(candidate.path)
            self._check_config(candidate.path)
        except (BundleError, ConfigError) as error:
            return Verdict(False, str(error))
        return Verdict(True)

    def begin(self, candidate: Candidate) -> None:
        if not self.runs(candidate):
            self._restart()

    def revert(self, to: Candidate | None) -> None:
        if os.environ.get(VARIABLE, "") != (str(to.path) if to else ""):
            self._restart()


def self_check(python: Path, config: Path, timeout_s: float = CHECK_S) -> Verdict:
    """Ask a runtime, in a process of its own, whether it can run here."""
    settings = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1"}
    env = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")} | settings
    try:
        done = subprocess.run(
            [str(python), "-m", "edge_runtime.update.self_check", "--config", str(config)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=env, timeout=timeout_s, check=False,
        )  # fmt: skip
    except OSError as error:
        return Verdict(False, f"it cannot be started: {error}")
    except subprocess.TimeoutExpired:
        return Verdict(False, f"it did not answer within {timeout_s:g} s when it was asked whether it can run here")
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        why = lines[-1][-200:] if lines else f"exit code {done.returncode}"
        return Verdict(False, f"it says that it cannot run here: {why}")
    return Verdict(True)


def begin_again() -> None:
    """Has the supervisor, which has started this process, stop everything and begin again."""
    if VARIABLE not in os.environ:
        raise EndpointError("this process was not started by `gudgeon run`, which could begin again")
    os.kill(os.getppid(), signal.SIGHUP)


def watch_of(device: DeviceConfig) -> Watch:
    """Looks at the processes of this device, with a connection to the outbox of its own."""

    def begin() -> LoopWatch:
        state_dir = device.device.state_dir
        tasks = wanted(device.has_line, device.has_sensors, device.update.takes)
        names = tuple(task.name for task in tasks)
        return LoopWatch(names, lambda: processes(state_dir), open_outbox(device), boot_id(), SystemClock())

    return begin


def runtime_gate(device: DeviceConfig, config_path: Path) -> RuntimeGate:
    return RuntimeGate(device.device.state_dir, config_path, watch_of(device), SystemClock())


def config_gate(device: DeviceConfig, config_path: Path) -> ConfigGate:
    def check(folder: Path) -> object:
        return with_overlay(config_path, read_overlay(folder / CONFIG_FILE))

    return ConfigGate(check, begin_again, watch_of(device), SystemClock())
