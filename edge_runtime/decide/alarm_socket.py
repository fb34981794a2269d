"""The local socket on which an operator's requests reach `monitor`; readable and writable by this user only.

One datagram asks, one answers:

    {"action": "ack" | "shelve" | "unshelve", "alarm": id, "by": who, "for_s": seconds}  →  {"reason": ""}

`reason` says why it was not done; "" where it was, and it is on the disk by then.

A command that `link` has admitted comes as {"command": an AlarmRequest}; it is answered by the Event of its end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_runtime import datagrams
from edge_runtime.decide.points import ALARM_COMMANDS, AlarmRequest
from edge_runtime.errors import EndpointError

SOCKET_PATH = Path("run") / "monitor.sock"
LIMIT_BYTES = 4096
TURN_LIMIT = 16  # requests taken in one turn

Ask = Callable[[str, str, str, float], str]


class AlarmSocket:
    """Bound by `monitor`."""

    def __init__(self, path: Path) -> None:
        self._socket = datagrams.bound(path)

    def serve(self, ask: Ask, command: Callable[[AlarmRequest], None]) -> None:
        """Answer what has come; never waits."""
        for _ in range(TURN_LIMIT):
            try:
                data, sender = self._socket.recvfrom(LIMIT_BYTES)
            except OSError:
                return  # nothing there
            if (request := decode(data)) is not None:
                command(request)
                continue
            reason = answer(data, ask)
            if sender:
                try:
                    self._socket.sendto(json.dumps({"reason": reason}).encode(), sender)
                except OSError:
                    continue  # who asked has gone; what was done is told as an Event

    def close(self) -> None:
        self._socket.close()


def decode(data: bytes) -> AlarmRequest | None:
    """None where it is not a command of `link`."""
    try:
        request = AlarmRequest(**json.loads(data)["command"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    texts = (request.id, request.source, request.name, request.alarm)
    numbers = type(request.until_mono_ns) is int and isinstance(request.for_s, int | float)
    return request if numbers and all(isinstance(t, str) for t in texts) and request.name in ALARM_COMMANDS else None


def hand_over(path: Path, request: AlarmRequest) -> bool:
    """Give one command to `monitor`; False where it is not there to take it."""
    return datagrams.send(path, json.dumps({"command": vars(request)}).encode())


def answer(data: bytes, ask: Ask) -> str:
    try:
        value: Any = json.loads(data)
        texts = [value[name] for name in ("action", "alarm", "by")]
        for_s = value.get("for_s", 0.0)
        if not all(isinstance(t, str) for t in texts) or isinstance(for_s, bool) or not isinstance(for_s, int | float):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "not a request: expected action, alarm, by and for_s"
    action, alarm, by = texts
    return ask(action, alarm, by, float(for_s))


def send(path: Path, action: str, alarm: str, by: str, for_s: float = 0.0, timeout_s: float = 5.0) -> str:
    """Ask the running `monitor`; its reason, "" where it was done. EndpointError where there is none."""
    request = {"action": action, "alarm": alarm, "by": by, "for_s": for_s}
    try:
        return str(json.loads(datagrams.ask(path, json.dumps(request).encode(), timeout_s))["reason"])
    except (OSError, ValueError, KeyError) as error:
        raise EndpointError(f"{path}: no answer from the process monitor ({error}); is `gudgeon run` up?") from error
