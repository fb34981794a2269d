"""The local datagram socket by which somebody on this device wakes the updater: `gudgeon update now`. This user only."""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from pathlib import Path

from edge_runtime.durable import disk_errors

SOCKET_PATH = Path("run") / "update.sock"
LOOK_S = 0.5


class Wake:
    """Bound by the updater."""

    def __init__(self, path: Path) -> None:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(str(path))
            path.chmod(0o600)
        self._socket.setblocking(False)

    def wait(self, seconds: float) -> bool:
        """Until somebody wakes it, or the time is over; True where it was woken."""
        ready, _, _ = select.select([self._socket], [], [], max(0.0, seconds))
        if not ready:
            return False
        with suppress(OSError):
            while self._socket.recv(16):
                pass
        return True

    def close(self) -> None:
        self._socket.close()


def poke(path: Path) -> None:
    """The same where it does not matter whether somebody is there."""
    wake(path)


def wake(path: Path) -> bool:
    """False where no updater is there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        try:
            sock.sendto(b"now", str(path))
        except OSError:
            return False
    return True
