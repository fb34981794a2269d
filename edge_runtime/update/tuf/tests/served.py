"""A repository in memory behind a real HTTP server on this machine: `metadata/…` and `targets/…`."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from edge_runtime.update.tuf.memory import MemoryRepository
from edge_runtime.wire.target import prefixed

#: path → state and body, or None for what the repository says
Answer = Callable[[str], tuple[int, bytes] | None]


@contextmanager
def served(repository: MemoryRepository, answer: Answer = lambda path: None) -> Iterator[str]:
    """The address; `answer` may say something else for any path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state, body = answer(self.path) or found(self.path)
            self.send_response(state)
            self.send_header("content-length", str(len(body)))
            if state == 302:
                self.send_header("location", "/metadata/timestamp.json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    def found(path: str) -> tuple[int, bytes]:
        part, _, name = unquote(path).lstrip("/").partition("/")
        here = {prefixed(p, hashlib.sha256(d).hexdigest()): d for p, d in repository.artifacts.items()}
        data = (repository.files if part == "metadata" else here).get(name)
        return (200, data) if data is not None else (404, b"no such file")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
