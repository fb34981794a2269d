"""How large the outbox's file and its write-ahead log are, and how they are kept small.

The log is copied into the file (a checkpoint) by whoever leaves more than so many pages in it. `link` does it earlier than
the others and also now and then, so that an append of `control` seldom has to.
"""

from __future__ import annotations

import os

from edge_runtime.outbox.database import Database

LINK_WAL_PAGES = 256


class Pages:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._limit: tuple[int, int] = (0, 0)

    def used(self) -> int:
        with self._database.explained() as db:
            total = db.execute("PRAGMA page_count").fetchone()[0]
            return int(total - db.execute("PRAGMA freelist_count").fetchone()[0])

    def limit(self, pages: int) -> None:
        """The file never grows beyond this many pages (or what it has now)."""
        limit = (self._database.generation, pages)
        if limit != self._limit:
            with self._database.explained() as db:
                db.execute(f"PRAGMA max_page_count = {max(pages, 1)}")
            self._limit = limit

    def shrink(self, most: int) -> None:
        """Give file pages back to the file system where there are more."""
        with self._database.explained() as db:
            total = db.execute("PRAGMA page_count").fetchone()[0]
            if total > most:
                db.execute(f"PRAGMA incremental_vacuum({total - most})").fetchall()
                self.truncate_log()

    def log_bytes(self) -> int:
        try:
            return os.stat(f"{self._database.path}-wal").st_size
        except FileNotFoundError:
            return 0

    def truncate_log(self) -> None:
        """Waits for readers, but not for ever; what they keep it from is done the next time."""
        self._database.be_patient()
        with self._database.explained() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def keep_log(self) -> None:
        """Copy the log into the file, now and after one's own commits. Nobody is waited for."""
        with self._database.explained() as db:
            db.execute(f"PRAGMA wal_autocheckpoint = {LINK_WAL_PAGES}").fetchall()
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
