"""What an edge node must know after a restart: the bdSeq of its last CONNECT, and the names that it told.

`<state_dir>/sparkplug.json`, replaced as a whole. A file that cannot be read is begun anew, and so said in the log: the host
then sees a bdSeq of 0 and new aliases, both of which a birth explains."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from edge_runtime import log
from edge_runtime.durable import replace_file
from edge_runtime.errors import ResourceError
from edge_runtime.link.sparkplug.mapping import Owner
from edge_runtime.link.sparkplug.payload import DataType
from edge_runtime.link.sparkplug.session import SEQ_MODULUS, after

FILE = "sparkplug.json"

Row = tuple[str, str, int, int]


class Saved:
    """`bd_seq` None: there was no CONNECT yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.bd_seq: int | None = None
        self.metrics: list[Row] = []
        try:
            self.bd_seq, self.metrics = _read(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, RecursionError) as error:
            log.say(logging.WARNING, "Sparkplug state begins anew", path=str(path), reason=str(error))

    def next_bd_seq(self) -> int:
        """For the next CONNECT, on the disk before it is used."""
        self.bd_seq = 0 if self.bd_seq is None else after(self.bd_seq)
        self._write()
        return self.bd_seq

    def keep(self, metrics: list[Row]) -> None:
        self.metrics = metrics
        self._write()

    def _write(self) -> None:
        """A disk that refuses stops nothing: what is not kept is learnt again."""
        try:
            replace_file(self._path, json.dumps({"bd_seq": self.bd_seq, "metrics": self.metrics}).encode())
        except ResourceError as error:
            log.say(logging.WARNING, "Sparkplug state not kept", reason=str(error))


def _read(value: Any) -> tuple[int | None, list[Row]]:
    bd_seq, rows = (value.get("bd_seq"), value.get("metrics")) if isinstance(value, dict) else (None, None)
    if not (bd_seq is None or type(bd_seq) is int) or not isinstance(rows, list):
        raise ValueError('expected {"bd_seq": number or null, "metrics": […]}')
    if bd_seq is not None and not 0 <= bd_seq < SEQ_MODULUS:
        raise ValueError(f"bd_seq = {bd_seq}: expected 0 to {SEQ_MODULUS - 1}")
    metrics = [_row(row) for row in rows]
    if len({alias for _, _, alias, _ in metrics}) != len(metrics):
        raise ValueError("an alias is there twice")
    return bd_seq, metrics


def _row(row: Any) -> Row:
    if not isinstance(row, list) or [type(v) for v in row] != [str, str, int, int] or row[2] < 1:
        raise ValueError(f"metric {row!r}: expected [owner, name, alias, datatype]")
    owner, name, alias, datatype = row
    return Owner(owner).value, name, alias, int(DataType(datatype))
