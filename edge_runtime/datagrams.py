"""The local datagram sockets between the processes of one device; readable and writable by this user only."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from edge_runtime.durable import disk_errors

LINK_PATH = (
    Path("run") / "link.sock"
)  # below the state folder: whoever has put something into the outbox tells `link` here
ANSWER_LIMIT_BYTES = 16 * 1024


def bound(path: Path) -> socket.socket:
    """A socket that hears at `path` and never waits; ResourceError where it cannot be made. What was left there is removed."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            sock.bind(str(path))
            path.chmod(0o600)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def send(path: Path, data: bytes) -> bool:
    """False where nobody is there to take it; never waits."""
    with Sender(path) as to:
        return to(data)


def ask(path: Path, data: bytes, timeout_s: float) -> bytes:
    """What the process at `path` answers; OSError where it does not within `timeout_s`."""
    own = path.with_name(f"{path.stem}-{os.getpid()}.sock")
    with bound(own) as sock:
        try:
            sock.settimeout(timeout_s)
            sock.sendto(data, str(path))
            return sock.recv(ANSWER_LIMIT_BYTES)
        finally:
            own.unlink(missing_ok=True)


class Sender:
    """Tells the process at `path`, time and again, over one socket; never waits, never fails."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def __call__(self, data: bytes = b"1") -> bool:
        """False where nobody is there, or it has not read what came before."""
        try:
            self._socket.sendto(data, self._path)
        except OSError:
            return False
        return True

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
