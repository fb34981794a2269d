"""Group commit: what arrives while one commit is under way shares the next, so that n producers cost one fsync and not n.

One of the waiting threads leads: it commits for all, then hands over to a thread that waits by then. After a shared
commit the next leader waits, at most `LINGER_S`, for as many producers as came last time: they are just being woken.
A single producer never waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

LINGER_S = 0.001


@dataclass(eq=False)
class Request:
    """One append that waits for its commit. `size_bytes` counts against the limit of one transaction."""

    size_bytes: int
    turn: threading.Event = field(default_factory=threading.Event)
    done: bool = False
    abandoned: bool = False
    error: BaseException | None = None


class GroupCommit:
    """`commit` stores a group of requests; what it raises becomes each one's `error`, and is raised in the leader if it is
    no ordinary exception."""

    def __init__(self, commit: Callable[[Sequence[Request]], None], limit_bytes: int) -> None:
        self._commit, self._limit_bytes = commit, limit_bytes
        self._lock = threading.Lock()
        self._waiting: list[Request] = []
        self._leading = False
        self._last_size = 1
        self._gathered = threading.Event()

    def submit(self, request: Request) -> None:
        """Returns when the request was committed or failed."""
        with self._lock:
            self._waiting.append(request)
            lead, self._leading = not self._leading, True
            if len(self._waiting) >= self._last_size:
                self._gathered.set()
        while not request.done:  # more than once only if the limit left it out
            if not lead:
                self._wait(request)
            if not request.done:
                self._lead()
            lead = False

    def _wait(self, request: Request) -> None:
        try:
            request.turn.wait()
            request.turn.clear()
        except BaseException:
            with self._lock:
                request.abandoned = True
                leads = request.turn.is_set() and not request.done
            if leads:
                self._hand_over()
            raise

    def _lead(self) -> None:
        if self._last_size > 1:
            self._gathered.wait(LINGER_S)
        group = self._take()
        try:
            self._commit(group)
        except BaseException as error:  # an interrupt too: the others in the group must not take it for success
            for request in group:
                request.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            for request in group:
                request.done = True
                request.turn.set()
            self._hand_over()

    def _take(self) -> list[Request]:
        """The requests of one transaction, in the order of their arrival; at least one."""
        with self._lock:
            count, size = 0, 0
            for request in self._waiting:
                size += request.size_bytes
                if count and size > self._limit_bytes:
                    break
                count += 1
            group, self._waiting = self._waiting[:count], self._waiting[count:]
            self._last_size = len(group)
            self._gathered.clear()
            return group

    def _hand_over(self) -> None:
        with self._lock:
            heir = next((r for r in self._waiting if not r.abandoned), None)
            if heir is None:
                self._leading = False
        if heir is not None:
            heir.turn.set()
