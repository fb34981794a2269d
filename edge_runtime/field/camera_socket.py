"""The simulator's camera (or any other that speaks docs/reference/frames.md): frames over one TCP connection.

Frames are kept by trigger number, a few at most, so that a frame that comes before its turn is not lost.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import OrderedDict
from typing import Any

import numpy as np

from edge_runtime.errors import EndpointError
from edge_runtime.field.camera import Frame

HEADER = struct.Struct("!4sHHIQIIII")
MAGIC, VERSION = b"GFRM", 1
PIXELS_LIMIT = 64_000_000
KEPT = 4
CONNECT_TIMEOUT_S = 1.0


class SocketCamera:
    repeats = False

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._socket: socket.socket | None = None
        self._ended = ""
        self._buffer = bytearray()
        self._frames: OrderedDict[int, Frame] = OrderedDict()

    def open(self) -> None:
        self.close()
        try:
            self._socket = socket.create_connection(self._address, CONNECT_TIMEOUT_S)
        except OSError as error:
            raise EndpointError(f"camera {self._name}: cannot connect: {error}; check address and port") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)

    def frame(self, trigger: int, timeout_s: float) -> Frame | None:
        deadline = time.monotonic() + timeout_s
        while True:
            self._receive()
            if trigger in self._frames:
                found = self._frames.pop(trigger)
                for earlier in [t for t in self._frames if not _is_after(t, trigger)]:
                    del self._frames[earlier]
                return found
            if self._ended:
                reason = self._ended
                self.close()
                raise EndpointError(f"camera {self._name}: {reason}")
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            assert self._socket is not None
            select.select([self._socket], [], [], left)

    def idle(self) -> None:
        pass

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._ended = ""
        self._buffer.clear()
        self._frames.clear()

    def describe(self) -> dict[str, Any]:
        return {"driver": "socket", "address": self._name}

    @property
    def _name(self) -> str:
        return f"{self._address[0]}:{self._address[1]}"

    def _receive(self) -> None:
        """Take what has arrived, without waiting. A frame that came just before the connection ended still counts."""
        if self._socket is None:
            raise EndpointError(f"camera {self._name}: not connected")
        try:
            while True:
                data = self._socket.recv(1 << 20)
                if not data:
                    raise ConnectionError("the camera closed the connection")
                self._buffer += data
                while self._take_one():
                    pass
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._ended = str(error)

    def _take_one(self) -> bool:
        if len(self._buffer) < HEADER.size:
            return False
        header = HEADER.unpack_from(self._buffer)
        magic, version, header_bytes, trigger, timestamp_ns, width, height, channels, size = header
        if (
            magic != MAGIC
            or version != VERSION
            or channels not in (1, 3)
            or size != width * height * channels
            or not 0 < size <= PIXELS_LIMIT
            or header_bytes < HEADER.size
        ):
            self.close()
            what = f"{magic!r} version {version}, {width} × {height} × {channels}, {size} bytes"
            raise EndpointError(f"camera {self._name}: not a frame of protocol version {VERSION}: {what}")
        end = header_bytes + size
        if len(self._buffer) < end:
            return False
        pixels = np.frombuffer(bytes(self._buffer[header_bytes:end]), np.uint8)
        del self._buffer[:end]
        shape = (height, width) if channels == 1 else (height, width, 3)
        self._frames[trigger] = Frame(trigger, timestamp_ns, pixels.reshape(shape))
        while len(self._frames) > KEPT:
            self._frames.popitem(last=False)
        return True


def _is_after(trigger: int, other: int) -> bool:
    """Trigger numbers are 16-bit and wrap: `trigger` comes after `other` if it is less than half the range ahead."""
    return 0 < (trigger - other) & 0xFFFF < 0x8000
