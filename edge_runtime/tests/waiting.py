"""What tests wait with: for the thing itself, with a bound that only a hang reaches; and ports that nobody else is given."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 60.0  # of all waits: a machine that stands still for some seconds is no failure
_held: list[socket.socket] = []


def pause() -> None:
    threading.Event().wait(0.01)


def until(done: Callable[[], T], turn: Callable[[], object] = pause, told: Callable[[], object] = str) -> T:
    """The first true value of `done`; between two looks `turn` is called. AssertionError with what `told` says at the end
    of all patience."""
    end_s = monotonic() + PATIENCE_S
    while not (found := done()):
        assert monotonic() < end_s, told()
        turn()
    return found


def free_port() -> int:
    """On the loopback, held until this process ends: no other process is given it, and who sets SO_REUSEADDR, as every
    server here does, may listen on it. Until then connections are refused."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    _held.append(sock)
    return int(sock.getsockname()[1])


def answers(port: int) -> bool:
    """Whether a server listens there, on the loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
    except OSError:
        return False
    return True
