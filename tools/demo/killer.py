"""`gudgeon demo --kills N`: kill -9 of `control` and `link` in turn, at random moments of the run."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

PROCESSES = ("control", "link")


class Killer:
    """The run is cut into as many stretches of parts as there are kills; each kill comes at a random part of its own stretch.
    `kills` is what was done."""

    def __init__(self, count: int, parts: int, processes_file: Path, rng: random.Random) -> None:
        first, last = 10, max(11, parts - 40)
        stretch = (last - first) / max(count, 1)
        self._due = [first + stretch * (i + rng.random()) for i in range(count)]
        self._file, self._rng = processes_file, rng
        self.kills: list[dict[str, Any]] = []

    @property
    def pending(self) -> bool:
        return len(self.kills) < len(self._due)

    def at(self, part: int) -> None:
        """Called with the number of parts so far."""
        if not self.pending or part < self._due[len(self.kills)]:
            return
        name = PROCESSES[len(self.kills) % 2]
        time.sleep(self._rng.random() * 0.05)
        try:
            pid = json.loads(self._file.read_text())[name]["pid"]
            wall_ns = time.time_ns()
            os.kill(pid, signal.SIGKILL)
        except (OSError, ValueError, KeyError):
            return  # between death and restart; tried again at the next call
        self.kills.append({"process": name, "wall_ns": wall_ns, "part": part})
