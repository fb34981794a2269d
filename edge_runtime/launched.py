"""One run of one runtime under `gudgeon-launch`: started, heard, ended with all that it has started.

Like `launcher`, whose other half it is: replaced by no update, standard library only, nothing of the product.

- A runtime says READY=1 on $NOTIFY_SOCKET, and then WATCHDOG=1 again and again (systemd's sd_notify). Not ready in time, or
  silent: it hangs.
- It ends with the launcher. What it leaves behind falls to the launcher (a subreaper), which ends that, too, before anything
  else is started. It holds the lock of the launcher, so that a new one waits for the runtime of one that was killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

SETTLED_S, TURN_S = 60.0, 0.2
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
DROPPED = ("PYTHONPATH", "PYTHONHOME", "WATCHDOG_USEC", "WATCHDOG_PID")
PYTHON_SETTINGS = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1"}


class Limits(NamedTuple):
    """`ready_s`: from the start to READY=1. `silent_s`: between two signs of life. `trial_s`: from the start of a trial to its
    confirmation. `stop_s`: from the wish that it ends to its end."""

    ready_s: float = 300.0
    silent_s: float = 60.0
    trial_s: float = 1800.0
    stop_s: float = 12.0


class Seen(NamedTuple):
    """`why` it has to be ended or has ended by itself, "" while all is well. `code`: the exit code, where it has ended.
    `settled`: it was ready, and ran for a while."""

    why: str = ""
    code: int | None = None
    settled: bool = False


class Keeper:
    """Runs one runtime at a time, within the folder `run_dir`."""

    def __init__(self, run_dir: Path, limits: Limits) -> None:
        self._limits, self._path = limits, run_dir / "launch.sock"
        run_dir.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(run_dir / "launch.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(
                f"gudgeon-launch: another one, or what it started, still runs in {run_dir}; waiting",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))
        self._path.chmod(0o600)
        self._socket.settimeout(TURN_S)
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

    def start(self, command: Sequence[str], settings: Mapping[str, str]) -> None:
        """OSError where it cannot be started."""
        env = {name: text for name, text in os.environ.items() if name not in DROPPED}
        self._child = subprocess.Popen(
            command, env={**env, **PYTHON_SETTINGS, **settings, "NOTIFY_SOCKET": str(self._path)},
            stdin=subprocess.DEVNULL, pass_fds=[self._lock], start_new_session=True,
            preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
        )  # fmt: skip
        self._began_s = self._heard_s = time.monotonic()
        self.ready = False

    def look(self, trial: bool) -> Seen:
        """After a moment of listening."""
        message, now_s = self.hear(), time.monotonic()
        self._heard_s = now_s if message else self._heard_s
        self.ready = self.ready or b"READY=1" in message
        age_s, limits = now_s - self._began_s, self._limits
        if (code := reap(self._child)) is not None:
            return Seen(f"it ended with exit code {code}", code, self.ready and age_s > SETTLED_S)
        if not self.ready and age_s > limits.ready_s:
            return Seen(f"it was not ready within {limits.ready_s:g} s")
        if self.ready and now_s - self._heard_s > limits.silent_s:
            return Seen(f"it hangs: nothing was heard of it for {limits.silent_s:g} s")
        if trial and age_s > limits.trial_s:
            return Seen(f"it was not confirmed within {limits.trial_s:g} s")
        return Seen()

    def end(self) -> None:
        """The runtime is asked to end what it has started; what is left then is killed."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            told: set[int] = set()
            until_s = time.monotonic() + self._limits.stop_s
            while (left := children()) and time.monotonic() < until_s:
                for pid in left - told:
                    os.kill(pid, number)
                told |= left
                self.hear()
                reap(None)

    def hear(self) -> bytes:
        """The next message of the runtime; waits a moment for it. The system hears that the launcher goes on."""
        notify("WATCHDOG=1")
        with contextlib.suppress(TimeoutError):
            return self._socket.recv(4096)
        return b""


def notify(text: str) -> None:
    """systemd, or whoever started this program and wants to know (sd_notify)."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to, contextlib.suppress(OSError):
            to.sendto(text.encode(), "\0" + address[1:] if address[0] == "@" else address)


def children() -> set[int]:
    """Those of this process, also those that were left to it, without those that have ended."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone in between
            state, parent, *_ = stat.read_text().rpartition(")")[2].split()
            found |= {int(stat.parent.name)} if int(parent) == os.getpid() and state != "Z" else set()
    return found


def reap(child: subprocess.Popen[bytes] | None) -> int | None:
    """The exit code of `child`, where it has ended; the end of others is taken note of, too."""
    with contextlib.suppress(ChildProcessError):
        while (done := os.waitpid(-1, os.WNOHANG))[0]:
            if child and done[0] == child.pid:
                child.returncode = os.waitstatus_to_exitcode(done[1])
    return child.returncode if child else None
