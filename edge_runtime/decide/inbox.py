"""The local socket on which `link` hands admitted commands to `control`; readable and writable by this user only.

A datagram is one command, handed over once. What lies in the socket when `control` dies is gone, and `link` tells that its
end is not known: nothing is carried out twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_runtime import datagrams
from edge_runtime.decide.points import WriteRequest

SOCKET_PATH = Path("run") / "control.sock"
LIMIT_BYTES = 4096

#: the next command that waits, None where there is none; never waits
Inbox = Callable[[], WriteRequest | None]


def encode_request(request: WriteRequest) -> bytes:
    return json.dumps(vars(request)).encode()


def decode_request(data: bytes) -> WriteRequest | None:
    """None where it is not one: only `link` writes here."""
    try:
        value: Any = json.loads(data)
        request = WriteRequest(**value)
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (request.id, request.source, request.name)
    fits = all(isinstance(t, str) for t in texts) and type(request.until_mono_ns) is int
    return request if fits and isinstance(request.value, bool | int | float) else None


class CommandSocket:
    """Bound by `control`."""

    def __init__(self, path: Path) -> None:
        self._socket = datagrams.bound(path)

    def __call__(self) -> WriteRequest | None:
        try:
            return decode_request(self._socket.recv(LIMIT_BYTES))
        except OSError:  # nothing there
            return None

    def close(self) -> None:
        self._socket.close()


def hand_over(path: Path, request: WriteRequest) -> bool:
    """Give one command to `control`; False where it is not there to take it."""
    return datagrams.send(path, encode_request(request))
