"""The part log: one JSON line for each part, once its fate at the gate is settled, flushed at once.

Written by a thread of its own: a disk that stalls must not hold up the line.
"""

from __future__ import annotations

import json
import queue
import threading
from pathlib import Path
from typing import Any

from firmware_sim.errors import ResourceError
from firmware_sim.part import Part


class PartLog:
    """`path` None: nothing is written. An existing file is replaced."""

    def __init__(self, path: Path | None) -> None:
        self._rows: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._path, self._waiting, self._written = path, 0, 0
        self._thread: threading.Thread | None = None
        self.problem: str | None = None
        if path is None:
            return
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise ResourceError(
                f"part log {path}: cannot be written: {error.strerror}; choose another --log"
            ) from error
        self._thread = threading.Thread(target=self._write, name="partlog", daemon=True)
        self._thread.start()

    def add(self, part: Part) -> None:
        if self._thread is not None:
            self._waiting += 1
            self._rows.put(part.log_row())

    @property
    def settled(self) -> bool:
        """Everything that was added is in the file (or the file has failed)."""
        return self._written == self._waiting

    def close(self) -> None:
        if self._thread is not None:
            self._rows.put(None)
            self._thread.join(5.0)

    def _write(self) -> None:
        with self._file as file:
            while (row := self._rows.get()) is not None:
                try:
                    file.write(json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n")
                    file.flush()
                except OSError as error:
                    self.problem = f"part log {self._path}: {error.strerror}"
                self._written += 1
