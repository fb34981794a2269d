"""The processes of a device, one table. The supervisor starts them in this order and stops them in this order too:
`control` first, so that `link` can still carry its last Events away."""

from __future__ import annotations

from typing import NamedTuple


class Task(NamedTuple):
    """`stop_s`: how long the process may take to end after SIGTERM."""

    name: str
    module: str
    stop_s: float


TASKS: tuple[Task, ...] = (
    Task("control", "edge_runtime.control_process", 2.0),
    Task("link", "edge_runtime.link.process", 5.0),
)
