"""JSON lines on standard error, one object a line; files beside it where a folder is given. Both are bounded.

- The files of one process take at most `FILE_LIMIT_BYTES` × (1 + `OLDER_KEPT`); the oldest go.
- The same line (level and message; its fields may differ) is written `SAME_LIMIT` times a minute. How often it was left
  out after that is told when the minute is over, with the next line of any kind.
- A line that is too long is cut, and says so.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_LIMIT_BYTES = 1024 * 1024
OLDER_KEPT = 2
LINE_LIMIT_BYTES = 8 * 1024
SAME_LIMIT = 10
SAME_WINDOW_S = 60.0
SAME_KEPT = 256


class JsonFormatter(logging.Formatter):
    """`log.info("event", extra={"fields": {...}})` → {"ts", "level", "process", "msg", …fields}."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        line = {"ts": round(record.created, 3), "level": record.levelname.lower(), "process": self._process}
        line |= {"msg": record.getMessage(), **fields}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        text = json.dumps(line, default=str)
        if len(text) <= LINE_LIMIT_BYTES:
            return text
        room = LINE_LIMIT_BYTES // 2
        short = {name: line[name] for name in ("ts", "level", "process")}
        return json.dumps(
            short | {"msg": record.getMessage()[: room // 12], "cut": text[-room // 12 :], "bytes": len(text)}
        )


@dataclass
class _Window:
    begun_s: float
    level: int
    message: str
    count: int = 0


class Repeats(logging.Filter):
    """Lets a line pass until it has come `SAME_LIMIT` times within `SAME_WINDOW_S`; `tell` writes what was left out."""

    def __init__(self, tell: Callable[[int, str, int], None], clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._tell, self._clock_s = tell, clock_s
        self._lock = threading.Lock()
        self._windows: dict[tuple[int, str], _Window] = {}  # the oldest first

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.levelno, str(record.msg))
        now_s = self._clock_s()
        with self._lock:
            over = list(self._over(now_s))
            window = self._windows.setdefault(key, _Window(now_s, *key))
            window.count += 1
            passes = window.count <= SAME_LIMIT
        for old in over:
            if old.count > SAME_LIMIT:
                self._tell(old.level, old.message, old.count - SAME_LIMIT)
        return passes

    def _over(self, now_s: float) -> Iterator[_Window]:
        """Windows that have ended, and the oldest where there are too many: taken out."""
        while self._windows:
            key, oldest = next(iter(self._windows.items()))
            if now_s - oldest.begun_s < SAME_WINDOW_S and len(self._windows) < SAME_KEPT:
                return
            yield self._windows.pop(key)


def setup(process: str, folder: Path | None = None) -> logging.Logger:
    """The process's logger. A folder that cannot be written is no reason to stop: standard error remains."""
    logger = logging.getLogger("gudgeon")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.raiseExceptions = False  # a full disk under the log is no reason to print tracebacks
    for old in logger.handlers:
        old.close()
    logger.handlers = []
    logger.filters = []
    logger.addFilter(Repeats(_left_out))
    _add(logger, logging.StreamHandler(sys.stderr), process)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{process}.log"
            rotating = logging.handlers.RotatingFileHandler(file, maxBytes=FILE_LIMIT_BYTES, backupCount=OLDER_KEPT)
            _add(logger, rotating, process)
        except OSError as error:
            logger.warning("no log file in %s: %s", folder, error)
    return logger


def _add(logger: logging.Logger, handler: logging.Handler, process: str) -> None:
    handler.setFormatter(JsonFormatter(process))
    logger.addHandler(handler)


def _left_out(level: int, message: str, times: int) -> None:
    """Past the filter, as itself it may come any number of times."""
    logger = logging.getLogger("gudgeon")
    record = logger.makeRecord(logger.name, level, "", 0, "the same line was left out", (), None)
    record.fields = {"line": message, "times": times}
    logger.callHandlers(record)


def say(level: int, message: str, **fields: Any) -> None:
    """Log with fields."""
    logging.getLogger("gudgeon").log(level, message, extra={"fields": fields})
