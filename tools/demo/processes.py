"""The processes of a demo: started in order, stopped in order, never left behind.

Each runs in its own session, so that Ctrl-C reaches the demo alone and the demo stops them in the right order; each asks
the kernel to be ended with the demo (`PR_SET_PDEATHSIG`), so that a killed demo leaves nothing running.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edge_runtime.child import end_with_parent
from edge_runtime.errors import GudgeonError, ResourceError


@dataclass
class Running:
    """One started process; `log_path` holds its standard output and error."""

    name: str
    process: subprocess.Popen[bytes]
    log_path: Path
    log_file: IO[bytes]

    def check(self) -> None:
        """GudgeonError with the process's own last line and exit code if it has ended."""
        code = self.process.poll()
        if code is not None:
            error = GudgeonError(f"{self.name} ended with exit code {code}: {self.last_line()}")
            error.exit_code = code if code > 0 else 1
            raise error

    def last_line(self) -> str:
        lines = self.log_path.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it printed nothing; see {self.log_path}"

    def stop(self, timeout_s: float = 10.0) -> int:
        """SIGTERM, then SIGKILL after `timeout_s`; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log_file.close()
        return self.process.returncode


def start(name: str, command: str, args: Sequence[str], log_dir: Path) -> Running:
    """Start ``gudgeon COMMAND ARGS`` with its output in ``<log_dir>/<name>.log``."""
    return start_module(name, "edge_runtime.cli", [command, *args], log_dir)


def start_module(name: str, module: str, args: Sequence[str], log_dir: Path) -> Running:
    """The same for ``python -m MODULE ARGS``."""
    log_path = log_dir / f"{name}.log"
    log_file = log_path.open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", module, *args],
        stdin=subprocess.DEVNULL,
        stdout=log_file,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    return Running(name, process, log_path, log_file)


def wait_ready(running: Running, ready_file: Path, timeout_s: float = 30.0) -> dict[str, Any]:
    """The content of the ready file, as soon as the process has written it."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if ready_file.exists():
            content: dict[str, Any] = json.loads(ready_file.read_text())
            return content
        running.check()
        time.sleep(0.05)
    raise ResourceError(f"{running.name} was not ready after {timeout_s:.0f} s; see {running.log_path}")


def wait_path(running: Running, path: Path, timeout_s: float = 30.0) -> None:
    """Until the process has made this file or socket."""
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        running.check()
        if time.monotonic() > deadline:
            raise ResourceError(f"{running.name} was not ready after {timeout_s:.0f} s; see {running.log_path}")
        time.sleep(0.05)
