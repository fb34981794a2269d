"""The processes of a device, one table. The supervisor starts them in this order and stops them in this order too:
`control` and `monitor` first, so that `link` can still carry their last Events away."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

#: name of a task → its pid and restarts, in the state folder
STATE_FILE = Path("run") / "processes.json"
#: slot set of an asset → why the bundle that the configuration names was refused at the start
REFUSED_FILE = Path("run") / "refused.json"


class Task(NamedTuple):
    """`stop_s`: how long the process may take to end after SIGTERM. `essential`: a disk or a socket that it cannot use at its
    start ends the device; the others are started again and again while `control` goes on. `needs`: what the configuration
    must have, so that it is started."""

    name: str
    module: str
    stop_s: float
    essential: bool
    needs: Literal["", "line", "sensors", "update"] = ""


#: One thread for NumPy's linear algebra: its helpers sleep between parts, and waking them costs more than they save.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

TASKS: tuple[Task, ...] = (
    Task("control", "edge_runtime.control_process", 2.0, essential=True, needs="line"),
    Task("monitor", "edge_runtime.monitor_process", 2.0, essential=False, needs="sensors"),
    Task("update", "edge_runtime.update.process", 5.0, essential=False, needs="update"),
    Task("link", "edge_runtime.link.process", 5.0, essential=False),
)


def wanted(has_line: bool, has_sensors: bool, has_update: bool = False) -> tuple[Task, ...]:
    """Those that this device needs."""
    there = {"": True, "line": has_line, "sensors": has_sensors, "update": has_update}
    return tuple(task for task in TASKS if there[task.needs])
