"""A small real camera server, written from the frame protocol's table and not from the driver."""

from __future__ import annotations

import socket
import struct
from types import TracebackType

import numpy as np
from numpy.typing import NDArray


def frame_bytes(
    trigger: int,
    pixels: NDArray[np.uint8],
    magic: bytes = b"GFRM",
    version: int = 1,
    header_bytes: int = 36,
    size: int | None = None,
) -> bytes:
    """One frame; what differs from the protocol is an argument."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    length = pixels.nbytes if size is None else size
    head = struct.pack("!4sHHIQIIII", magic, version, header_bytes, trigger, 123, width, height, channels, length)
    return head.ljust(header_bytes, b"\0") + pixels.tobytes()


class FrameServer:
    """Listens on a free port of the loopback; the newest connection gets the frames."""

    def __init__(self) -> None:
        self.port = 0

    def __enter__(self) -> FrameServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", self.port), backlog=8)
        self.port = self._listening.getsockname()[1]
        self._connections: list[socket.socket] = []

    def stop(self) -> None:
        self._accept(0.0)
        for connection in self._connections:
            connection.close()
        self._listening.close()

    def send(self, trigger: int, pixels: NDArray[np.uint8]) -> None:
        self.send_bytes(frame_bytes(trigger, pixels))

    def send_bytes(self, data: bytes) -> None:
        self._accept()
        self._connections[-1].sendall(data)

    def hang_up(self) -> None:
        self._accept()
        self._connections.pop().close()

    def _accept(self, wait_s: float = 2.0) -> None:
        """Take every connection that waits; the first is waited for."""
        self._listening.settimeout(0.0 if self._connections else wait_s)
        try:
            while True:
                self._connections.append(self._listening.accept()[0])
                self._listening.settimeout(0.0)
        except (BlockingIOError, TimeoutError, OSError):
            return
