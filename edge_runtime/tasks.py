"""The processes of a device, one table. The supervisor starts them in this order and stops them in this order too:
`control` first, so that `link` can still carry its last Events away."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

#: name of a task → its pid and restarts, in the state folder
STATE_FILE = Path("run") / "processes.json"


class Task(NamedTuple):
    """`stop_s`: how long the process may take to end after SIGTERM. `essential`: a disk or a socket that it cannot use at its
    start ends the device; the others are started again and again while `control` goes on."""

    name: str
    module: str
    stop_s: float
    essential: bool


#: One thread for NumPy's linear algebra: its helpers sleep between parts, and waking them costs more than they save.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

TASKS: tuple[Task, ...] = (
    Task("control", "edge_runtime.control_process", 2.0, essential=True),
    Task("link", "edge_runtime.link.process", 5.0, essential=False),
)
