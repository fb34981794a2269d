"""Where alarms live on the disk: `<state_dir>/alarms.json`, replaced as a whole.

    1. the book, with what is still to be told     alarms.json, on the disk
    2. the Events                                  outbox, one commit, on the disk
    3. the book without them                       at the next call

A crash before 1 forgets a change that nobody was told; the condition is measured again. A crash between 1 and 2, or
between 2 and 3, finds the Events in the book; the newest one in the outbox says which of them are there. So none is lost
and none comes twice. `monitor` is the only writer of stream `alarm`.

Time on the shelf is kept in running time: after a reboot what was left of it at the last write goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from edge_runtime.decide.alarm_book import AlarmBook, Saved, Told
from edge_runtime.decide.alarm_states import AlarmState
from edge_runtime.decide.alarms import Alarm
from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.wire.envelope import Event

NAME = "alarms.json"
VERSION = 1
SIZE_LIMIT_BYTES = 16 * 1024 * 1024
STREAM = "alarm"
COMMIT_ITEMS = 20


class Store(Protocol):
    """What is needed of the outbox."""

    def append_many(self, items: Sequence[tuple[str, str, Mapping[str, Any]]], durable: bool | None = None) -> Any: ...
    def last(self, stream: str) -> Event | None: ...


class AlarmFile:
    """`write`: how a file is replaced durably; an argument for the test that kills it there."""

    def __init__(
        self, path: Path, boot_id: str, store: Store, write: Callable[[Path, bytes], None] = replace_file
    ) -> None:
        self._path, self._boot_id, self._store, self._write = path, boot_id, store, write

    def load(self, now_ns: int) -> tuple[Saved | None, int, str]:
        """(what is on the disk, the newest change in the outbox, why the file could not be used). A damaged file is
        kept beside as `alarms.json.damaged`."""
        newest = self._store.last(STREAM)
        told = newest.body.get("change", 0) if newest else 0
        told = told if isinstance(told, int) else 0
        if not self._path.exists():
            return None, told, ""
        try:
            return read(self._path, self._boot_id, now_ns), told, ""
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            with disk_errors(self._path):
                self._path.replace(self._path.with_name(NAME + ".damaged"))
            return None, told, f"{NAME} is damaged ({error}); conditions that hold are told anew"

    def store(self, book: AlarmBook, now_ns: int, wall_ns: int) -> bool:
        """Store what changed; whether Events were added. ResourceError where the disk refuses: nothing is lost, and the
        next call tries again."""
        if book.dirty:
            self._write(self._path, encode(book.saved(), self._boot_id, now_ns, wall_ns))
            book.dirty = False
        added = bool(book.untold)
        while book.untold:
            items = [(STREAM, told.kind, told.body) for told in book.untold[:COMMIT_ITEMS]]
            self._store.append_many(items, True)
            book.told(len(items))
            book.dirty = True  # step 3
        return added


def encode(saved: Saved, boot_id: str, now_ns: int, wall_ns: int) -> bytes:
    alarms = [
        {
            "id": a.id, "state": a.state.value, "active": a.active, "severity": a.severity,
            "raised_wall_ns": a.raised_wall_ns, "by": a.by,
            "shelf_left_ns": max(0, a.shelf_until_ns - now_ns) if a.state is AlarmState.SHELVED else 0,
        }
        for a in saved.alarms
    ]  # fmt: skip
    data = {
        "v": VERSION, "boot_id": boot_id, "mono_ns": now_ns, "wall_ns": wall_ns, "change": saved.change,
        "alarms": alarms, "detail": saved.detail, "untold": [[t.kind, t.body] for t in saved.untold],
        "hours_s": saved.hours_s,
    }  # fmt: skip
    return json.dumps(data, indent=1, allow_nan=False).encode() + b"\n"


def read(path: Path, boot_id: str, now_ns: int) -> Saved:
    """ValueError, KeyError or TypeError where it is not such a file."""
    with disk_errors(path):
        if path.stat().st_size > SIZE_LIMIT_BYTES:
            raise ValueError(f"larger than {SIZE_LIMIT_BYTES} bytes")
        data = json.loads(path.read_bytes())
    if data["v"] != VERSION:
        raise ValueError(f"version {data['v']!r}, expected {VERSION}")
    passed_ns = max(0, now_ns - int(data["mono_ns"])) if data["boot_id"] == boot_id else 0
    found = []
    for item in data["alarms"]:
        alarm = Alarm(
            str(item["id"]), AlarmState(item["state"]), bool(item["active"]), int(item["severity"]),
            int(item["raised_wall_ns"]), str(item["by"]),
        )  # fmt: skip
        if alarm.state is AlarmState.SHELVED:
            alarm = replace(alarm, shelf_until_ns=now_ns + max(0, int(item["shelf_left_ns"]) - passed_ns))
        if not 0 <= alarm.severity <= 4 or (alarm.active and not alarm.severity):
            raise ValueError(f"severity of {alarm.id} is {alarm.severity}")
        found.append(alarm)
    untold = tuple(Told(str(kind), dict(body)) for kind, body in data["untold"])
    if any(type(told.body["change"]) is not int for told in untold):
        raise ValueError("a change has no number")
    hours_s = {str(name): float(seconds) for name, seconds in data["hours_s"].items()}
    return Saved(
        int(data["change"]), tuple(found), {str(k): dict(v) for k, v in data["detail"].items()}, untold, hours_s
    )
