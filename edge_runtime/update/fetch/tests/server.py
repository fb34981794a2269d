"""A real HTTP server on the loopback that answers as it is told to, also wrongly, and counts what went over the wire."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

ETAG = '"first"'
PIECE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Asked:
    """`number` counts requests from 1."""

    path: str
    headers: Mapping[str, str]
    number: int

    @property
    def span(self) -> tuple[int, int | None] | None:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        return (int(found[1]), int(found[2]) + 1 if found[2] else None) if found else None


@dataclass
class Answer:
    """`cut`: how many bytes of the body are sent before the connection is closed. `raw`: instead of everything else."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    raw: bytes = b""


def proper(files: Mapping[str, bytes], asked: Asked, etag: str = ETAG) -> Answer:
    """As a good server answers: ranges, If-Range, 404, 416."""
    data = files.get(asked.path.lstrip("/"))
    if data is None:
        return Answer(404, body=b"no such file")
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if asked.span is None or asked.headers.get("if-range", etag) != etag:
        return Answer(200, headers, data)
    start, stop = asked.span[0], min(asked.span[1] or len(data), len(data))
    if start >= len(data):
        return Answer(416, {"Content-Range": f"bytes */{len(data)}"})
    return Answer(206, headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}, data[start:stop])


class Server:
    """`answer` makes an Answer of what is asked; it may be changed while the server runs."""

    def __init__(self, answer: Callable[[Asked], Answer], tls: ssl.SSLContext | None = None) -> None:
        self.answer, self._tls = answer, tls
        self.asked: list[Asked] = []
        self.sent_bytes = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE_BYTES)
        self.port = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._closing = False

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/"

    def __enter__(self) -> Server:
        self._threads.append(threading.Thread(target=self._accept, daemon=True))
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        socket.create_connection(("127.0.0.1", self.port), timeout=20).close()
        self._listener.close()
        for thread in self._threads:
            thread.join(20)

    def _accept(self) -> None:
        while not self._closing:
            raw, _ = self._listener.accept()
            self._threads.append(threading.Thread(target=self._serve, args=(raw,), daemon=True))
            self._threads[-1].start()

    def _serve(self, raw: socket.socket) -> None:
        sock = raw
        raw.settimeout(20)
        try:
            with raw:
                if self._tls:
                    sock = self._tls.wrap_socket(raw, server_side=True)
                asked = self._read(sock)
                if asked:
                    self._give(sock, self.answer(asked))
                sock.close()
        except OSError:
            pass

    def _read(self, sock: socket.socket) -> Asked | None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (piece := sock.recv(4096)):
                return None
            head += piece
        line, *rest = head.decode().split("\r\n\r\n")[0].split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in rest)}
        asked = Asked(line.split()[1], headers, len(self.asked) + 1)
        self.asked.append(asked)
        return asked

    def _give(self, sock: socket.socket, answer: Answer) -> None:
        headers = {"Content-Length": str(len(answer.body)), **answer.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
        sock.sendall(answer.raw or f"HTTP/1.1 {answer.status} X\r\n{lines}\r\n".encode())
        left = memoryview(answer.body)[: answer.cut]
        while left:
            count = sock.send(left[:PIECE_BYTES])
            self.sent(count)
            left = left[count:]

    def sent(self, count: int) -> None:
        """So much was given to the kernel."""
        self.sent_bytes += count
