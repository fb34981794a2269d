"""The spare of `control`: while a model is on trial, a second one with what is confirmed stands ready, loaded and warm
(`decide.trial_files`). It takes over within milliseconds when the first dies or hangs in an engine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from edge_runtime.decide import engine_watch
from edge_runtime.decide.trial_files import READY, WANT


class Spare:
    """`spawn` starts one, with a pipe as its standard input."""

    def __init__(self, state_dir: Path, spawn: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._run, self._watch = state_dir / "run", state_dir / engine_watch.PATH
        self._spawn = spawn
        self._process: subprocess.Popen[bytes] | None = None
        for name in (WANT, READY):
            (self._run / name).unlink(missing_ok=True)

    def turn(self) -> bool:
        """Start it, or let it go, as `control` wants; True while one is wanted."""
        wanted = (self._run / WANT).exists()
        if self._process is not None and (not wanted or self._process.poll() is not None):
            self.stop()
        if wanted and self._process is None:
            self._process = self._spawn()
        return wanted

    def hung(self) -> str:
        """Why `control` must be ended now, "" where it need not."""
        hung_s = engine_watch.hung_s(self._watch, time.monotonic_ns())
        return "" if hung_s is None else f"the engine hung for {hung_s:.2f} s"

    def take_over(self, reason: str) -> subprocess.Popen[bytes] | None:
        """`control` has ended: the process that is `control` from now on; None where no spare is ready."""
        self._watch.unlink(missing_ok=True)  # it speaks of the one that ended
        process, self._process = self._process, None
        ready = (self._run / READY).exists()
        (self._run / READY).unlink(missing_ok=True)
        if process is None or process.poll() is not None:
            return None
        assert process.stdin is not None
        try:
            if ready:
                process.stdin.write(f"{reason}\n".encode())
            process.stdin.close()
        except OSError:
            ready = False
        if not ready:
            process.kill()
            process.wait()
            return None
        return process

    def stop(self) -> None:
        process, self._process = self._process, None
        (self._run / READY).unlink(missing_ok=True)
        if process is not None:
            process.kill()
            process.wait()
