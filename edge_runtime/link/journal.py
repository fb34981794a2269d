"""What `link` must not forget of commands: the highest counter admitted, and the one command that is under way.

On the disk before anything is handed to `control`. A file that is damaged is told, and then *no* command is taken that is
older than the moment of finding it (`since_ns`): replay protection fails closed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge_runtime.durable import disk_errors, replace_file

FILE = "commands.json"
SOURCES_KEPT = 200


@dataclass(frozen=True)
class Open:
    """The command that was handed over. `body`: what its Events say. Its time runs out by the clock of boot `boot_id`."""

    body: dict[str, Any]
    until_mono_ns: int
    boot_id: str


@dataclass(frozen=True)
class Journal:
    """`since_ns`: nothing that was issued before is taken. `counter`: of signed commands. `newest_ns`: "source/name" → the time
    of issue of its newest unsigned command."""

    counter: int = 0
    newest_ns: dict[str, int] = field(default_factory=dict)
    open: Open | None = None
    since_ns: int = 0

    def with_newest(self, source: str, issued_ns: int) -> Journal:
        rest = {k: v for k, v in self.newest_ns.items() if k != source}
        kept = dict(list(rest.items())[-(SOURCES_KEPT - 1) :])
        return replace(self, newest_ns={**kept, source: issued_ns})


def load(path: Path) -> Journal | None:
    """None where the file is damaged; an empty journal where there is none."""
    with disk_errors(path):
        if not path.exists():
            return Journal()
        text = path.read_text(errors="replace")
    try:
        value = json.loads(text)
        under_way = Open(**value.pop("open")) if value.get("open") else value.pop("open", None)
        found = Journal(**value, open=under_way)
        whole = type(found.counter) is int and type(found.since_ns) is int and isinstance(found.newest_ns, dict)
        return found if whole else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def save(path: Path, journal: Journal) -> None:
    """ResourceError where the disk refuses: then nothing may be done that the journal should have said."""
    value = {**vars(journal), "open": vars(journal.open) if journal.open else None}
    replace_file(path, json.dumps(value).encode())
