"""uvicorn for devices: TLS 1.2 or newer, the client's certificate in the scope of each request, and no patience with the slow.

A client certificate is asked for and not required, because a device that enrols has none; one that is shown must be valid, or
there is no connection. Who needs one is each route's to say (`peer.certified`).

    handshake            10 s
    request line, headers 10 s from the opening, or from the answer before
    body                 30 s
    answer               a client that takes nothing for 30 s is cut off
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import threading
import time

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from cloud.access.admission import network_of
from cloud.devices.peer import WithPeer
from edge_runtime.errors import GudgeonError

HANDSHAKE_S, HEAD_S, BODY_S, STALL_S, GOODBYE_S = 10.0, 10.0, 30.0, 30.0, 3.0
LOOK_S = 1.0
CONNECTIONS, PER_ADDRESS = 2000, 500
HEAD_BYTES = 16 * 1024
START_S, STOP_S = 10.0, 3


class DeviceProtocol(H11Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.app = WithPeer(self.app, tls.getpeercert(binary_form=True) if tls else None)
        self._free_s = self._asked_s = time.monotonic()
        self._stalled_s: float | None = None
        if self._crowded():
            transport.abort()
            return
        self._watch: asyncio.TimerHandle | None = self.loop.call_later(LOOK_S, self._look)

    def _crowded(self) -> bool:
        self.network = network_of(self.client[0] if self.client else "")
        others = [c.network for c in self.connections if isinstance(c, DeviceProtocol)]
        return len(others) > CONNECTIONS or others.count(self.network) > PER_ADDRESS

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._asked_s = time.monotonic()

    def on_response_complete(self) -> None:
        self._free_s = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._stalled_s = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled_s = None
        super().resume_writing()

    def _look(self) -> None:
        now_s, cycle = time.monotonic(), self.cycle
        free = cycle is None or cycle.response_complete
        slow = (
            (free and now_s - self._free_s > HEAD_S + (self.timeout_keep_alive if cycle else 0))
            or (not free and cycle.more_body and now_s - self._asked_s > BODY_S)
            or (self._stalled_s is not None and now_s - self._stalled_s > STALL_S)
        )
        if self.transport.is_closing():
            return
        if slow:
            self.transport.abort()
        else:
            self._watch = self.loop.call_later(LOOK_S, self._look)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does it, with our limits for the handshake."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(1)
        config, loop = self.config, asyncio.get_running_loop()

        def protocol() -> DeviceProtocol:
            return DeviceProtocol(config, self.server_state, self.lifespan.state, loop)

        self.servers = []
        for sock in sockets or ():
            server = await loop.create_server(
                protocol, sock=sock, ssl=config.ssl, ssl_handshake_timeout=HANDSHAKE_S, ssl_shutdown_timeout=GOODBYE_S
            )
            self.servers.append(server)
        self.started = True


class DeviceServer:
    """Serves on a socket that already listens, in a thread of its own."""

    def __init__(self, app: FastAPI, sock: socket.socket, context: ssl.SSLContext) -> None:
        config = uvicorn.Config(
            app,
            http=DeviceProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # TLS ends here: who asks is who is connected, whatever a header says
            timeout_graceful_shutdown=STOP_S,
            timeout_keep_alive=60,
            h11_max_incomplete_event_size=HEAD_BYTES,
            ssl_context_factory=lambda *_: context,
            lifespan="on",
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([sock],), name="devices", daemon=True)

    def start(self) -> None:
        self._thread.start()
        waited = threading.Event()
        for _ in range(round(START_S / 0.01)):
            if self._server.started or not self._thread.is_alive():
                break
            waited.wait(0.01)
        if not self._server.started:
            raise GudgeonError("the listener for devices did not start")

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(2 * STOP_S)


def server_context(roots: bytes) -> ssl.SSLContext:
    """For devices whose certificates end in one of these roots. The server's own certificate is loaded by `identity.Served`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    context.load_verify_locations(cadata=roots.decode())
    return context
