"""Errand: one piece of work that may wait, in a thread beside the loop: reading and warming a model, files, a closing engine.

The engines give up the interpreter's lock while they load and run. For the rest the thread stands one step of priority below
the loop, so that nothing else keeps it from giving the lock back, and gives it back after `SWITCH_S`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
SWITCH_S = 0.0001


class Errand(Generic[T]):
    """When `done`, `error` is set or `result` is there."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.result: T | None = None
        self.error: Exception | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name="errand", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        usual_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        try:
            one_step_back()
            self.result = self._work()
        except Exception as error:  # whatever it is, the line goes on with what it has
            self.error = error
        finally:
            sys.setswitchinterval(usual_s)


def one_step_back() -> None:
    """This thread, where it is real-time: one step of priority less."""
    if os.sched_getscheduler(0) == os.SCHED_FIFO:
        priority = os.sched_getparam(0).sched_priority
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(max(priority - 1, 1)))
