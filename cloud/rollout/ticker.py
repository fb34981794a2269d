"""`gudgeon cloud` moves rollouts on by the clock, and looks at experiments: a thread that looks every two seconds. What fails is
told, and tried again."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy import Engine

from cloud.experiments.store import look_at_all
from cloud.rollout.clock import advance, first_line
from cloud.rollout.registry import Registry
from edge_runtime import log

EVERY_S = 2.0
LOOK_EVERY = 30  # times that: at experiments


class Ticker:
    def __init__(self, engine: Engine, registry: Registry | None, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._engine, self._registry, self._now_ns = engine, registry, now_ns
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rollouts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        for count in itertools.count(1):
            if self._stopping.wait(EVERY_S):
                return
            try:
                for rollout, state in advance(self._engine, self._now_ns(), self._registry).items():
                    log.say(logging.INFO, "rollout", id=rollout, state=state)
                if count % LOOK_EVERY == 0:
                    look_at_all(self._engine, self._now_ns())
            except Exception as error:  # a thread that ends would stop every rollout, and nobody would hear of it
                log.say(logging.ERROR, "rollouts were not moved on", reason=first_line(error))
