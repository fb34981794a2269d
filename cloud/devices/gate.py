"""What every request of a device passes first, as one ASGI layer: how often, and how much.

- A connection without a certificate has the rate of its address; one with a certificate has its own.
- A body over the limit is refused by its length, or when it turns out to be longer than it said.
- Answers tell nothing of the server, and nobody keeps them.
"""

from __future__ import annotations

import hashlib
import math
import time

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.access.admission import network_of
from cloud.access.limits import Limit
from cloud.devices.peer import PEER

BODY_LIMIT_BYTES = 128 * 1024
#: requests a second, and at once
STRANGERS, DEVICES = (20.0, 100.0), (200.0, 1000.0)
HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class Gate:
    def __init__(
        self,
        app: ASGIApp,
        strangers: tuple[float, float] = STRANGERS,
        devices: tuple[float, float] = DEVICES,
        limit_bytes: int = BODY_LIMIT_BYTES,
    ) -> None:
        self._app, self._limit_bytes = app, limit_bytes
        self._strangers, self._devices = Limit(*strangers, time.monotonic), Limit(*devices, time.monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wait_s = self._wait_s(scope)
        if wait_s > 0:
            seconds = str(math.ceil(wait_s))
            text = f"too many requests; try again in {seconds} s"
            await JSONResponse({"detail": text}, 429, {"retry-after": seconds})(scope, receive, send)
            return
        await self._bounded(scope, receive, send)

    def _wait_s(self, scope: Scope) -> float:
        certificate = scope.get(PEER)
        if certificate is not None:
            return self._devices.wait_s(hashlib.sha256(certificate).hexdigest(), take=True)
        client = scope.get("client")
        return self._strangers.wait_s(network_of(client[0] if client else ""), take=True)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = not length.isdigit() or int(length[:12]) > self._limit_bytes
        got = 0

        async def counted() -> Message:
            nonlocal got, too_large
            message = await receive()
            got += len(message.get("body", b""))
            if got > self._limit_bytes:
                too_large = True
                return {"type": "http.disconnect"}
            return message

        async def with_headers(message: Message) -> None:
            if too_large:
                return  # the refusal takes its place
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message.get("headers", [])}
                added = [pair for pair in HEADERS if pair[0] not in there]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        if not too_large:
            try:
                await self._app(scope, counted, with_headers)
            except Exception:
                if not too_large:
                    raise
        if too_large:
            text = f"the body is over the limit of {self._limit_bytes} bytes"
            await JSONResponse({"detail": text}, 413, {"connection": "close"})(scope, receive, send)
