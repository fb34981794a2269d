"""The broker of a fleet run, which is killed and started again, and which tells who connected and when.

Mosquitto says so in its log; each line gets its time here, as it comes through the pipe. The embedded broker keeps no such
log: there the devices' own notes are what counts.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from edge_runtime.child import end_with_parent
from edge_runtime.errors import GudgeonError

READY = "running"
START_S = 20.0
CLIENT = "gudgeon-fleet-"
_OPENED = re.compile(r"New connection from (\S+) on port")
_CLIENT = re.compile(r"New client connected from (\S+) as (\S+)")


class Line(NamedTuple):
    at_ns: int
    text: str


class Mosquitto:
    """`start` and `kill` as often as one likes; `lines` keeps what it said, over all its lives."""

    def __init__(self, program: str, config: Path, log: Path) -> None:
        self._command, self._log = [program, "-c", str(config)], log
        self._process: subprocess.Popen[str] | None = None
        self.lines: list[Line] = []
        self.started_ns = 0

    def start(self) -> None:
        """Returns when it accepts connections."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=end_with_parent,
        )  # fmt: skip
        assert self._process.stderr is not None
        before = len(self.lines)
        threading.Thread(target=self._read, args=(self._process.stderr,), name="broker-log", daemon=True).start()
        deadline_s = time.monotonic() + START_S
        while not (ready := next((line for line in self.lines[before:] if READY in line.text), None)):
            if time.monotonic() > deadline_s or self._process.poll() is not None:
                said = self.lines[-1].text if self.lines else "it printed nothing"
                raise GudgeonError(f"Mosquitto did not start: {said}")
            time.sleep(0.005)
        self.started_ns = ready.at_ns

    def _read(self, pipe: IO[str]) -> None:
        with self._log.open("a") as log:
            for text in pipe:
                self.lines.append(Line(time.monotonic_ns(), text.rstrip()))
                log.write(text)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """As a crash: no goodbye to anybody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()


def connections_ns(lines: Iterable[Line], since_ns: int) -> list[int]:
    """When somebody of the fleet opened a connection: all that were opened, also those that came to nothing, but for the
    ones on which another client then spoke."""
    opened: dict[str, int] = {}
    for line in lines:
        if line.at_ns < since_ns:
            continue
        if found := _OPENED.search(line.text):
            opened[found[1]] = line.at_ns
        elif (found := _CLIENT.search(line.text)) and not found[2].startswith(CLIENT):
            opened.pop(found[1], None)
    return sorted(opened.values())


def clients(lines: Iterable[Line], since_ns: int) -> dict[str, int]:
    """Client id of the fleet → when the broker first accepted it."""
    first: dict[str, int] = {}
    for line in lines:
        found = _CLIENT.search(line.text) if line.at_ns >= since_ns else None
        if found and found[2].startswith(CLIENT):
            first.setdefault(found[2], line.at_ns)
    return first


def mosquitto_conf(port: int) -> Sequence[str]:
    return (f"listener {port} 127.0.0.1", "allow_anonymous true", "user root", "max_connections -1")
