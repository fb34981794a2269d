"""The outbox within its disk budget: measured, asked before each commit, made room for, and trimmed.

- The budget is asked inside the transaction that takes the room. What was found free then covers the next commits, too,
  until it is used up or another process has written: a commit in the middle of an empty budget asks nothing.
- Room is made by small transactions of their own (`shedding`), before the commit is tried again.
- Alarms may use what is kept back for them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from edge_runtime.errors import ResourceError
from edge_runtime.outbox.appending import Append
from edge_runtime.outbox.budget import UNLIMITED, Cap, cap_pages, du_bytes
from edge_runtime.outbox.database import Database
from edge_runtime.outbox.pages import Pages
from edge_runtime.outbox.policy import Storage
from edge_runtime.outbox.shedding import PAGES_OF_A_STEP, Shedding

GROUP_LIMIT_BYTES = 1024 * 1024
PAGE_BYTES = 4096
ROW_BYTES = 48  # what a row takes in the file beside its data, generously
HEADER_BYTES = 600  # of a record line, beside its body
COMMIT_PAGES = 8  # what a commit may touch beside its rows
ASK_AFTER_PAGES = 256  # as long as the log may grow unseen
EXPIRE_EVERY_S = 60
KEEP_LOG_EVERY_S = 10
ALARM = "alarm"


class Bounds:
    """To be used under the database's lock."""

    def __init__(
        self, database: Database, pages: Pages, shedding: Shedding, storage: Storage, frames_bytes: int, tick_s: int
    ) -> None:
        self._database, self._pages, self._shedding, self._storage = database, pages, shedding, storage
        self._frames_bytes = frames_bytes
        self._expired_s, self._log_kept_s = tick_s, tick_s - KEEP_LOG_EVERY_S
        self._free_pages = 0
        self._trim = False

    # ── now and then ────────────────────────────────────────────────────────────────────────────────────────────────

    def measure(self) -> None:
        """Look how much of the budget the rest of the folder takes, for all processes that share this outbox."""
        if not self._storage.budget_bytes:
            return
        path = self._database.path
        own = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]
        rest = du_bytes(path.parent, own)
        frames = max(0, self._frames_bytes - du_bytes(path.parent / "review"))
        with self._database.transaction(durable=False) as db:
            page_bytes = db.execute("PRAGMA page_size").fetchone()[0]
            text = json.dumps(cap_pages(self._storage, rest, frames, page_bytes))
            if text != self._database.get("cap"):  # else every other process would have to look again
                self._database.put("cap", text)
                self._free_pages = 0

    def maintain(self, tick_s: int) -> None:
        """Measure, expire, make room ahead, give back what the file has too much of; copy the log into the file."""
        self.measure()
        if tick_s - self._log_kept_s >= KEEP_LOG_EVERY_S:
            self._log_kept_s = tick_s
            self._pages.keep_log()
        self._shedding.expire(tick_s)
        cap = self._cap()
        if cap.hard < UNLIMITED:
            self._shedding.make_room(GROUP_LIMIT_BYTES // PAGE_BYTES, cap)
            self._pages.shrink(cap.hard)

    # ── for each commit ─────────────────────────────────────────────────────────────────────────────────────────────

    def keep(self, tick_s: int) -> None:
        """Before a commit: what is due by age or by the size of the log."""
        if tick_s - self._expired_s >= EXPIRE_EVERY_S:
            self._expired_s = tick_s
            self._shedding.expire(tick_s)
        if self._trim:
            self._trim = False
            self._shedding.trim_log()

    def fits(self, appends: Sequence[Append], changed: bool) -> bool:
        """Within the transaction: whether there is room. `changed`: another process has written since the last call."""
        if not self._storage.budget_bytes:
            return True
        pages = _pages(appends)
        if changed or pages > self._free_pages:
            cap = self._cap()
            self._pages.limit(cap.hard)
            free = cap.soft - PAGES_OF_A_STEP - self._pages.used()
            if pages > free:
                self._free_pages = 0
                return False
            self._free_pages = min(free, max(pages, ASK_AFTER_PAGES))
            self._trim = True
        self._free_pages -= pages
        return True

    def make_room(self, appends: Sequence[Append]) -> list[Append]:
        """Those for which there is room in the budget, after making some; the others get their error."""
        with self._database.reading():
            cap = self._cap()
        pages = _pages(appends)
        return [a for a in appends if self._admit(a, pages, cap)]

    def _admit(self, append: Append, pages: int, cap: Cap) -> bool:
        room = self._shedding.make_room(pages, cap)
        self._pages.limit(cap.hard)
        if not room and all(stream == ALARM for stream, *_ in append.items):
            room = self._pages.used() + pages <= cap.hard
        append.error = None if room else self._refusal(cap)
        return room

    def _refusal(self, cap: Cap) -> ResourceError:
        return ResourceError(
            f"{self._database.path}: the disk budget of {self._storage.budget_bytes} bytes is used up and nothing in it may "
            f"be given up; raise storage.budget_bytes, or change storage.classes ({cap.hard} pages are left to the outbox)"
        )

    def _cap(self) -> Cap:
        text = self._database.get("cap") if self._storage.budget_bytes else None
        return Cap(*json.loads(text)) if text else Cap(UNLIMITED, UNLIMITED)


def _pages(appends: Sequence[Append]) -> int:
    """What the rows may take at most."""
    size = sum(a.size_bytes + (ROW_BYTES + HEADER_BYTES) * len(a.items) for a in appends)
    return size // PAGE_BYTES + COMMIT_PAGES
