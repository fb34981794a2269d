"""`gudgeon cloud` lets go of what is older than the store is to keep (`cloud.store.pruning`), a page at a time, in a thread of
its own. What fails is told, and tried again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cloud.settings import StoreSection
from cloud.store.pruning import drop_empty_months, step, walks
from edge_runtime import log

LOOK_EVERY_S = 600.0
REST = 2.0  # times what a page took: so much of the time is left to ingest


class Pruner:
    def __init__(self, engine: Engine, store: StoreSection, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._engine, self._now_ns = engine, now_ns
        self._walks = walks(store.keep_days, store.keep_days_of)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pruning", daemon=True)

    def start(self) -> None:
        if self._walks:
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def once(self) -> int:
        """Everything that is too old by now; how many Events went."""
        gone = 0
        for walk in self._walks:
            more = True
            while more and not self._stopping.is_set():
                begun_s = time.perf_counter()
                pruned, more = step(self._engine, walk, self._now_ns())
                gone += pruned
                self._stopping.wait(REST * (time.perf_counter() - begun_s))
        longest_ns = max(walk.keep_ns for walk in self._walks)
        for name in drop_empty_months(self._engine, self._now_ns() - longest_ns):
            log.say(logging.INFO, "an empty month was dropped", table=name)
        return gone

    def _run(self) -> None:
        while True:
            try:
                gone = self.once()
                if gone:
                    log.say(logging.INFO, "Events older than [store] keeps them were deleted", events=gone)
            except (SQLAlchemyError, OSError) as error:
                log.say(logging.ERROR, "old Events were not deleted", reason=str(error).splitlines()[0][:300])
            if self._stopping.wait(LOOK_EVERY_S):
                return
