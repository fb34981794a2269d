"""The camera: a TCP server that pushes one frame for each trigger to every client (docs/reference/frames.md).

- A frame is made ready before its trigger; at the trigger only number and time are set, then it goes out at once.
- The caller sends after `part_seq` is written, never before.
- A client that does not take its frames is dropped, so that it never slows the others or the line.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_sim.errors import ResourceError
from firmware_sim.part import Truth

HEADER = struct.Struct("!4sHHIQIIII")
MAGIC, VERSION = b"GFRM", 1
TRIGGER_AT = struct.Struct("!IQ")
TRIGGER_OFFSET = 8
BACKLOG_FRAMES = 4
SEND_BUFFER_BYTES = 4 * 1024 * 1024


@dataclass
class ReadyFrame:
    """The bytes to be sent, number and time still 0, and the truth about the part, which is not sent."""

    payload: bytearray
    truth: Truth

    def stamp(self, trigger: int, timestamp_ns: int) -> bytes:
        TRIGGER_AT.pack_into(self.payload, TRIGGER_OFFSET, trigger, timestamp_ns)
        return bytes(self.payload)


def encode(pixels: NDArray[np.uint8], truth: Truth) -> ReadyFrame:
    """`pixels` is uint8 (height, width) or (height, width, 3)."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    header = HEADER.pack(MAGIC, VERSION, HEADER.size, 0, 0, width, height, channels, pixels.nbytes)
    return ReadyFrame(bytearray(header + np.ascontiguousarray(pixels).tobytes()), truth)


class _Client(asyncio.Protocol):
    def __init__(self, owner: Camera) -> None:
        self._owner = owner
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._owner.clients.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.clients.discard(self)


class Camera:
    def __init__(self) -> None:
        self.clients: set[_Client] = set()
        self.dropped_clients = 0
        self.frames = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port that was taken."""
        try:
            self._server = await asyncio.get_running_loop().create_server(lambda: _Client(self), host, port)
        except OSError as error:
            raise ResourceError(f"camera: cannot listen on {host}:{port}: {error.strerror or error}") from error
        return int(self._server.sockets[0].getsockname()[1])

    def push(self, frame: ReadyFrame, trigger: int, timestamp_ns: int) -> None:
        """Hand the frame to the sockets of all clients; the first bytes leave in this call."""
        data = frame.stamp(trigger, timestamp_ns)
        self.frames += 1
        for client in list(self.clients):
            transport = client.transport
            if transport is None or transport.is_closing():
                continue
            if transport.get_write_buffer_size() > BACKLOG_FRAMES * len(data):
                transport.abort()
                self.clients.discard(client)
                self.dropped_clients += 1
            else:
                transport.write(data)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for client in list(self.clients):
            if client.transport is not None:
                client.transport.abort()
