"""`GET /metrics` on this machine, in threads of a process that has no web server: `link`, an ingest worker.

- A port in use is told and is no reason to stop: the server tries again, now and then.
- Requests are bounded: a few at once, in a few seconds each; anything but GET /metrics is refused.
- The Host header must name this machine, so that a web page elsewhere cannot read through a rebound name.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edge_runtime import log
from edge_runtime.clock import Clock
from edge_runtime.exposition import Page
from edge_runtime.mqtt_access import LOOPBACK

REQUEST_TIMEOUT_S = 2.0
AT_ONCE = 4
AGAIN_S = 60.0
PATH = "/metrics"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, page: Page) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.page = page
        self._free = threading.BoundedSemaphore(AT_ONCE)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        watch = threading.Timer(REQUEST_TIMEOUT_S, _end, [request])  # however slowly the bytes come
        watch.daemon = True
        watch.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            watch.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # else the client went away, or was too slow
            log.say(logging.WARNING, "a request for /metrics failed", reason=repr(error))


def _end(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended meanwhile


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        if _host_name(self.headers.get("host", "")) not in LOOPBACK:
            self._answer(421, b"this server answers to 127.0.0.1 and localhost only\n")
        elif self.path.partition("?")[0] != PATH:
            self._answer(404, b"there is only /metrics here\n")
        else:
            body, content_type = self.server.page.answer(self.headers.get("accept", ""))
            self._answer(200, body, content_type)

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "gudgeon"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the name is the base class's)
        pass  # a scrape every few seconds is nothing to tell


def _host_name(header: str) -> str:
    """The Host header without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


class MetricsServer:
    """Listens on the first of `ports` that is free; without any it serves nothing. `try_start` once, `try_again` as often as
    wanted: both tell why not, or ""."""

    def __init__(self, host: str, ports: Sequence[int], page: Page, clock: Clock) -> None:
        self._host, self._ports, self._page, self._clock = host, ports, page, clock
        self._server: _Server | None = None
        self._tried_ns = 0

    @property
    def port(self) -> int:
        """0 while nothing is served."""
        return int(self._server.server_address[1]) if self._server else 0

    def try_start(self) -> str:
        self._tried_ns = self._clock.monotonic_ns()
        reason = ""
        for port in self._ports if self._server is None else ():
            try:
                self._server = _Server(self._host, port, self._page)
            except OSError as error:
                reason = f"{self._host}:{port}: {error.strerror or error}"
                continue
            threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
            log.say(logging.INFO, "metrics are served", url=f"http://{self._host}:{self.port}{PATH}")
            return ""
        return reason

    def try_again(self) -> str:
        """The port may have become free; looked at once a minute."""
        waited_ns = self._clock.monotonic_ns() - self._tried_ns
        return self.try_start() if waited_ns >= AGAIN_S * 1e9 else ""

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
