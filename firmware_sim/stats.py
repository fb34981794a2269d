"""GET /stats: what the line has counted, as JSON. A few lines of HTTP/1.0, in the event loop of the line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from firmware_sim.errors import ResourceError

REQUEST_S = 2.0
REQUEST_BYTES = 8192


class Stats:
    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self._status = status
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port that was taken."""
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=REQUEST_BYTES)
        except OSError as error:
            raise ResourceError(
                f"stats: cannot listen on {host}:{port}: {error.strerror or error}; choose another stats.port"
            ) from error
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await reader.readuntil(b"\r\n\r\n")
            writer.write(self._answer(request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")))
            await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, request: list[str]) -> bytes:
        if request[:1] != ["GET"] or len(request) < 2 or request[1].split("?")[0] != "/stats":
            return _response("404 Not Found", {"error": "expected GET /stats"})
        return _response("200 OK", self._status())


def _response(status: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body, separators=(",", ":")).encode()
    head = f"HTTP/1.0 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data
