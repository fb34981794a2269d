"""What the end-to-end tests stand on: the command `gudgeon` as a process, a foreign PLC spoken to byte by byte, waiting."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: of all waits: a machine that stands still for some seconds is no failure
PATIENCE_S = 60.0
GUDGEON = (sys.executable, "-m", "edge_runtime.cli")


def gudgeon(*args: str | Path, cwd: Path, timeout_s: float = 150.0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [*GUDGEON, *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)


@contextmanager
def running(*args: str | Path, cwd: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs until it is stopped; it must end with exit code 0 after SIGTERM."""
    with program(*GUDGEON, *args, cwd=cwd, log=log) as process:
        yield process


@contextmanager
def program(*command: str | Path, cwd: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The same with any program."""
    with log.open("wb") as output:
        process = subprocess.Popen([*map(str, command)], cwd=cwd, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                code = -9
    assert code == 0, f"{command[-1]} ended with {code}: {log.read_text()[-2000:]}"


def wait_for(what: str, done: Callable[[], Any], timeout_s: float = PATIENCE_S, pause_s: float = 0.02) -> Any:
    """The first true value of `done`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = done()
        if value:
            return value
        time.sleep(pause_s)
    raise AssertionError(f"{what}: not within {timeout_s:.0f} s")


class Stood(threading.Thread):
    """For how long this machine stood still, as a thread sees it that wants to run every 20 ms; from `with` on."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seconds, self._end = 0.0, threading.Event()

    def run(self) -> None:
        before_s = time.monotonic()
        while not self._end.wait(0.02):
            now_s = time.monotonic()
            late_s, before_s = now_s - before_s - 0.02, now_s
            self.seconds += late_s if late_s > 0.05 else 0.0

    def __enter__(self) -> Stood:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()


def ready(file: Path, process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    """The content of a ready file, as soon as it is there; fails with the log of a process that has ended."""

    def look() -> Any:
        assert process.poll() is None, log.read_text()
        return file.exists() and json.loads(file.read_text())

    content: dict[str, Any] = wait_for(file.name, look)
    return content


def one_line(text: str) -> str:
    """The one line of an error, beside the JSON lines of the log; a traceback or a second line is a failure."""
    lines = [line for line in text.strip().splitlines() if line.strip() and not line.startswith('{"ts"')]
    assert len(lines) == 1, f"expected one line, found {len(lines)}:\n{text}"
    assert "Traceback" not in text
    return lines[0]


class Registers:
    """Holding registers of a Modbus TCP server, read and written by hand: independent of every library in use."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)

    def read(self, address: int, count: int = 1) -> list[int]:
        reply = self._ask(struct.pack(">BHH", 3, address, count))
        return list(struct.unpack(f">{count}H", reply[2:]))

    def write(self, address: int, values: Sequence[int]) -> None:
        count = len(values)
        self._ask(struct.pack(f">BHHB{count}H", 16, address, count, 2 * count, *values))

    def close(self) -> None:
        self._socket.close()

    def _ask(self, pdu: bytes) -> bytes:
        self._socket.sendall(struct.pack(">HHHB", 1, 0, len(pdu) + 1, 1) + pdu)
        header = self._exactly(7)
        reply = self._exactly(struct.unpack(">H", header[4:6])[0] - 1)
        assert reply[0] == pdu[0], f"exception {reply[1]} to function {pdu[0]}"
        return reply

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            assert part, "the server closed the connection"
            data += part
        return data
