"""The local datagram socket by which somebody on this device wakes the updater: `gudgeon update now`. This user only."""

from __future__ import annotations

import select
from contextlib import suppress
from pathlib import Path

from edge_runtime import datagrams

SOCKET_PATH = Path("run") / "update.sock"
LOOK_S = 0.5


class Wake:
    """Bound by the updater."""

    def __init__(self, path: Path) -> None:
        self._socket = datagrams.bound(path)

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


def wake(path: Path) -> bool:
    """False where no updater is there."""
    return datagrams.send(path, b"now")
