"""The local socket on which the updater asks `control` for another model; readable and writable by this user only.

One datagram asks, one answers:

    {"do": "swap", "slot_set", "path", "digest", "trial": true|false}   load it beside what runs, then exchange between two parts
    {"do": "revert", "digest", "reason"}     back to the model before, if this one is on trial
    {"do": "keep", "digest"}                 the trial is over, it stays
    {"do": "forget", "digest"}               how its last trial ended: it may be tried again
    {"do": "clear", "slot_set"}              nothing may judge in this slot set
    {"do": "watch", "path", "size"}          from now on frames go to the asker (`decide.frames`); "path" "": no more
    {"do": "taken"}                          the frame was taken; not answered
    {"do": "status"}

The answer is {"reason": why it was refused or "", **status}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_runtime import datagrams
from edge_runtime.errors import EndpointError

SOCKET_PATH = Path("run") / "swap.sock"
LIMIT_BYTES = 16 * 1024

Request = Mapping[str, Any]


class SwapSocket:
    """Bound by `control`; never waits."""

    def __init__(self, path: Path) -> None:
        self._socket = datagrams.bound(path)

    def receive(self) -> tuple[Request, str] | None:
        """The next request and who asks, None where none waits; one that is no object is an empty one."""
        try:
            data, sender = self._socket.recvfrom(LIMIT_BYTES)
        except OSError:
            return None
        return decode(data), sender if isinstance(sender, str) else ""

    def send(self, to: str, message: Mapping[str, Any]) -> bool:
        """False where nobody is there to take it."""
        try:
            self._socket.sendto(json.dumps(message).encode(), to)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


def decode(data: bytes) -> Request:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def ask(path: Path, request: Request, timeout_s: float = 2.0) -> Request:
    """Ask the running `control`; EndpointError where it does not answer."""
    try:
        return decode(datagrams.ask(path, json.dumps(request).encode(), timeout_s))
    except OSError as error:
        raise EndpointError(f"{path}: no answer from the process control ({error}); is `gudgeon run` up?") from error
