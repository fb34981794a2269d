"""Group commit: what arrives while one commit is under way shares the next, so that n producers cost one fsync and not n.

- The first to come leads: it commits in its own thread, for all that wait by then, and hands over to one that came
  meanwhile. A single producer wakes nobody and waits for nobody.
- Each that is woken wakes the next of its group before it returns: a leader that woke them all would make them queue for
  the interpreter.
- After a shared commit the next leader waits for as many as came last time, who are just being woken: no longer than
  that commit took, and at most `LINGER_S`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Generic, TypeVar

LINGER_S = 0.001


class Request:
    """One append that waits for its commit. `size_bytes` counts against the limit of one transaction."""

    __slots__ = ("abandoned", "done", "error", "following", "size_bytes", "turn")

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.turn = threading.Lock()  # held until it is this one's turn to go on
        self.turn.acquire()
        self.done = self.abandoned = False
        self.error: BaseException | None = None
        self.following: Request | None = None  # to be woken by this one


R = TypeVar("R", bound=Request)


class GroupCommit(Generic[R]):
    """`commit` stores a group of requests; what it raises becomes each one's `error`, and is raised in the leader if it is
    no ordinary exception."""

    def __init__(self, commit: Callable[[Sequence[R]], None], limit_bytes: int) -> None:
        self._commit, self._limit_bytes = commit, limit_bytes
        self._lock = threading.Lock()
        self._waiting: list[R] = []
        self._leader: R | None = None
        self._expected, self._linger_s = 1, 0.0
        self._gathered = threading.Lock()  # released when as many wait as are expected
        self._gathered.acquire()

    def submit(self, request: R) -> None:
        """Returns when the request was committed or failed."""
        with self._lock:
            self._waiting.append(request)
            if self._leader is None:
                self._leader = request
            elif len(self._waiting) == self._expected and self._gathered.locked():
                self._gathered.release()
            leads = self._leader is request
        if not leads:
            self._wait(request)
        if not request.done:
            self._lead(request)

    def _wait(self, request: R) -> None:
        """Until the request is done, or is the one to lead."""
        try:
            request.turn.acquire()
        except BaseException:
            self._abandon(request)
            raise
        finally:
            if request.following is not None:
                _wake(request.following)

    def _abandon(self, request: R) -> None:
        """An interrupt in a waiting thread: the others must not wait for it."""
        with self._lock:
            request.abandoned = True
            if request in self._waiting:
                self._waiting.remove(request)
            leads = self._leader is request
        if leads:
            self._hand_over()

    def _lead(self, leader: R) -> None:
        try:
            group = self._gather()
        except BaseException:
            self._abandon(leader)
            raise
        begin_s = perf_counter()
        try:
            self._commit(group)
        except BaseException as error:  # an interrupt too: the others in the group must not take it for success
            for request in group:
                request.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            self._linger_s = min(LINGER_S, perf_counter() - begin_s)
            first = self._finish(group, leader)
            self._hand_over()
            if first is not None:
                _wake(first)

    def _gather(self) -> Sequence[R]:
        """The requests of one transaction, in the order of their arrival; the leader's own is the first."""
        if len(self._waiting) < self._expected:
            self._gathered.acquire(timeout=self._linger_s)
        with self._lock:
            count, size = 0, 0
            for request in self._waiting:
                size += request.size_bytes
                if count and size > self._limit_bytes:
                    break
                count += 1
            group, self._waiting = self._waiting[:count], self._waiting[count:]
            self._expected = count
            self._gathered.acquire(blocking=False)
            return group

    def _finish(self, group: Sequence[R], leader: R) -> R | None:
        """Makes the chain of those to be woken; its first."""
        first = None
        with self._lock:
            for request in reversed(group):
                request.done = True
                if request is not leader and not request.abandoned:
                    request.following, first = first, request
        return first

    def _hand_over(self) -> None:
        with self._lock:
            self._leader = self._waiting[0] if self._waiting else None
            if self._leader is not None:
                _wake(self._leader)


def _wake(request: Request) -> None:
    """Twice does no harm: an interrupted thread passes its turn on, and may have done so before."""
    try:
        request.turn.release()
    except RuntimeError:
        pass
