"""Processes as the kernel sees them (Linux, proc(5)). Which a device has, its supervisor has written down."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from edge_runtime.tasks import STATE_FILE

PROC = Path("/proc")
UTIME, STIME, STARTTIME, RSS = 11, 12, 19, 21  # places in `stat` after the name, in ticks and pages


class Seen(NamedTuple):
    uptime_s: float
    resident_bytes: int
    cpu_s: float


class Process(NamedTuple):
    """`seen` is None where it does not run."""

    restarts: int
    seen: Seen | None


def processes(state_dir: Path, proc: Path = PROC) -> dict[str, Process]:
    """Name → process; none where no supervisor has written any."""
    try:
        state = json.loads((state_dir / STATE_FILE).read_text())
        return {name: Process(int(p["restarts"]), look(int(p["pid"]), proc)) for name, p in state.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # not a device that runs under the supervisor, or the file is being replaced


def look(pid: int, proc: Path = PROC) -> Seen | None:
    try:
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    since_boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    return Seen(
        uptime_s=since_boot_s - int(fields[STARTTIME]) / ticks,
        resident_bytes=int(fields[RSS]) * os.sysconf("SC_PAGE_SIZE"),
        cpu_s=(int(fields[UTIME]) + int(fields[STIME])) / ticks,
    )
