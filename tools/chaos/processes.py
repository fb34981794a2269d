"""The processes of a pair: each one is started, looked after as its supervisor would, killed on purpose, and stopped.

One thread: `Keeper.tick` starts again what has died; whoever waits calls it. A process that is not wanted stays down.
Every process asks the kernel to be ended with the harness, so that a killed harness leaves none running.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from edge_runtime.child import end_with_parent

RESTART_PAUSE_S = 0.3
STOP_S = 8.0


class Kept:
    """One process. `starts` counts, `ends` are the exit codes that it came to by itself."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name, self._command, self._log_path = name, list(command), log
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._due_s = 0.0
        self.wanted = False
        self.starts = 0
        self.ends: list[int] = []

    def start(self) -> None:
        self.wanted = True
        self.starts += 1
        self._log = self._log or self._log_path.open("ab")
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )

    def tick(self, now_s: float) -> None:
        """Note a death; start again after a pause."""
        if self._process is not None and (code := self._process.poll()) is not None:
            self.ends.append(code)
            self._process, self._due_s = None, now_s + RESTART_PAUSE_S
        if self._process is None and self.wanted and now_s >= self._due_s:
            self.start()

    @property
    def pid(self) -> int:
        """0 while it does not run."""
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, number: int) -> bool:
        """True if there was a process to send it to."""
        if self._process is None or self._process.poll() is not None:
            return False
        self._process.send_signal(number)
        return True

    def kill(self) -> bool:
        return self.send(signal.SIGKILL)

    def stop(self) -> int | None:
        """Ask it to end and wait; the exit code."""
        self.wanted = False
        process, self._process = self._process, None
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def last_line(self) -> str:
        text = self._log_path.read_text(errors="replace") if self._log_path.exists() else ""
        return next((line for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")

    def says(self, text: str) -> bool:
        """Its log has this text in it."""
        return self._log_path.exists() and text in self._log_path.read_text(errors="replace")

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None


class Keeper:
    """All processes of a run, by name, in the order in which they were added."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._kept: dict[str, Kept] = {}
        log_dir.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Kept:
        kept = self._kept[name] = Kept(name, command, self._log_dir / f"{name}.log", environment or {})
        return kept

    def __getitem__(self, name: str) -> Kept:
        return self._kept[name]

    def __contains__(self, name: str) -> bool:
        return name in self._kept

    def tick(self) -> None:
        for kept in self._kept.values():
            kept.tick(time.monotonic())

    def stop(self) -> None:
        """The last one first."""
        for kept in reversed(self._kept.values()):
            kept.stop()
            kept.close()

    def starts(self) -> dict[str, int]:
        return {name: kept.starts for name, kept in self._kept.items()}
