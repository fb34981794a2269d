"""JSON lines on standard error, one object a line; bounded files beside it where a folder is given."""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
from pathlib import Path
from typing import Any

FILE_LIMIT_BYTES = 2 * 1024 * 1024
FILES_KEPT = 3


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
        return json.dumps(line, default=str)


def setup(process: str, folder: Path | None = None) -> logging.Logger:
    """The process's logger. A folder that cannot be written is no reason to stop: standard error remains."""
    logger = logging.getLogger("gudgeon")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.raiseExceptions = False  # a full disk under the log is no reason to print tracebacks
    for old in logger.handlers:
        old.close()
    logger.handlers = []
    _add(logger, logging.StreamHandler(sys.stderr), process)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / f"{process}.log"
            rotating = logging.handlers.RotatingFileHandler(file, maxBytes=FILE_LIMIT_BYTES, backupCount=FILES_KEPT)
            _add(logger, rotating, process)
        except OSError as error:
            logger.warning("no log file in %s: %s", folder, error)
    return logger


def _add(logger: logging.Logger, handler: logging.Handler, process: str) -> None:
    handler.setFormatter(JsonFormatter(process))
    logger.addHandler(handler)


def say(level: int, message: str, **fields: Any) -> None:
    """Log with fields."""
    logging.getLogger("gudgeon").log(level, message, extra={"fields": fields})
