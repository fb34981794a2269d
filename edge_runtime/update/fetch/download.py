"""One file, from wherever a `Fetcher` leads, onto the disk: until its hash is right, its time is over, or it is pointless.

- What came stays: a connection that breaks is taken up at the very byte; after a restart of the process at the last whole
  chunk, or a part of one. So `k` cuts cost at most `k` chunks more than the file.
- The other side is believed in nothing. Another total, another range, another state of the file (ETag) in between, too slow,
  too much: each is refused or begun anew, a bounded number of times, and all that was received is bounded too.
- What is told at the end is the hash's word alone: BundleError where a complete file has another one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from edge_runtime.backoff import Backoff
from edge_runtime.clock import Clock
from edge_runtime.errors import BundleError
from edge_runtime.update.fetch.fetcher import Fetcher, FetchError, Reply
from edge_runtime.update.fetch.pace import DEFAULT, Limits, OverdueError, Pace, SlowError
from edge_runtime.update.fetch.partial import CHUNK_BYTES, TAIL_BYTES, Partial, Run, Wanted, finished

#: called with the bytes that are there, and those that there will be
Progress = Callable[[int, int], None]


def quiet(held_bytes: int, length: int) -> None:
    """No progress told."""


def download(
    fetcher: Fetcher,
    wanted: Wanted,
    folder: Path,
    clock: Clock,
    limits: Limits = DEFAULT,
    progress: Progress = quiet,
    rng: random.Random | None = None,
) -> Path:
    """The file in `folder`, named by its hash. EndpointError: it could not be fetched now; what came is kept. BundleError: what
    is there is not what was signed. ResourceError: the disk. `clock.sleep` waits between tries and may raise to end it all."""
    if done := finished(folder, wanted):
        progress(wanted.length, wanted.length)
        return done
    partial = Partial(folder, wanted, limits.leave_free_bytes)
    try:
        return _Download(fetcher, partial, clock, limits, progress, rng or random.Random()).run()
    finally:
        partial.close()


class _Download:
    def __init__(
        self, fetcher: Fetcher, partial: Partial, clock: Clock, limits: Limits, progress: Progress, rng: random.Random
    ) -> None:
        self._fetcher, self._partial, self._clock, self._limits = fetcher, partial, clock, limits
        self._wanted, self._progress = partial.wanted, progress
        self._pace = Pace(clock, limits)
        self._backoff = Backoff(limits.first_wait_s, limits.longest_wait_s, rng)
        self._pending = bytearray(partial.begun)  # of the chunk where the missing bytes begin
        self._kept = len(self._pending)  # of these, on the disk
        self._restarts = 0

    def run(self) -> Path:
        while True:
            while run := self._partial.missing():
                self._try(run)
            if done := self._partial.finish():
                self._progress(self._wanted.length, self._wanted.length)
                return done
            self._restart("does not have the hash that was signed")

    def _try(self, run: Run) -> None:
        before = self._amount()
        try:
            self._take(run)
        except SlowError as error:
            self._wait(FetchError(f"{self._wanted.path}: {error}"), before)
        except FetchError as error:
            self._wait(error, before)
        else:
            self._backoff.reset()

    def _amount(self) -> int:
        return self._partial.held_bytes + len(self._pending)

    def _wait(self, error: FetchError, before: int) -> None:
        """Before the next try; the error itself where there shall be none."""
        if self._amount() > before:
            self._backoff.reset()
        if not error.again or self._backoff.tries >= self._limits.tries:
            raise error
        pause_s = max(self._backoff.next_s(), error.after_s)
        if pause_s >= self._pace.left_s():
            raise OverdueError(f"{error}; no time is left for another try, what came is kept") from error
        self._clock.sleep(pause_s)

    def _take(self, run: Run) -> None:
        """One request, as far as it goes."""
        start = run.start + len(self._pending)
        stop = None if (start, run.stop) == (0, self._wanted.length) else run.stop
        reply = self._fetcher.open(self._wanted.path, self._pace, start, stop, self._partial.version)
        try:
            self._check(reply, start)
            self._receive(reply, self._wanted.length if start and not reply.start else run.stop)
        finally:
            reply.close()

    def _check(self, reply: Reply, start: int) -> None:
        path, length = self._wanted.path, self._wanted.length
        if reply.total not in (None, length):
            raise FetchError(f"{path}: has {reply.total} bytes there, {length} were signed; refused", again=False)
        if reply.start == 0:
            if start:
                self._drop_pending()
            self._partial.belongs_to(reply.version)
        elif reply.start != start:
            raise FetchError(f"{path}: asked for bytes from {start}, got them from {reply.start}; refused", again=False)
        elif not self._partial.version:
            self._partial.belongs_to(reply.version)
        elif reply.version not in ("", self._partial.version):
            self._restart("is another file now than a moment ago")
            raise FetchError(f"{path}: changed in between; begun anew")

    def _receive(self, reply: Reply, stop: int) -> None:
        at = reply.start - len(self._pending)
        while at + len(self._pending) < stop:
            piece = reply.read()
            if not piece:
                raise FetchError(f"{self._wanted.path}: broke off at {at + len(self._pending)} of {stop}")
            if self._pace.received_bytes > self._limits.spend * self._wanted.length + 4 * CHUNK_BYTES:
                raise FetchError(
                    f"{self._wanted.path}: {self._limits.spend:g} times its length was received; given up", again=False
                )
            self._pending += piece[: stop - at - len(self._pending)]
            at = self._keep(at, stop)
        if self._pending:
            raise AssertionError("a run ends at the end of a chunk")

    def _keep(self, at: int, stop: int) -> int:
        """Put what is a whole chunk by now to the disk; where the pending bytes begin."""
        while self._pending and len(self._pending) >= (size := min(CHUNK_BYTES, stop - at)):
            self._partial.put(at // CHUNK_BYTES, bytes(self._pending[:size]))
            del self._pending[:size]
            self._kept = 0
            at += size
            self._progress(self._partial.held_bytes, self._wanted.length)
        if len(self._pending) - self._kept >= TAIL_BYTES:
            self._partial.put_tail(at // CHUNK_BYTES, bytes(self._pending), self._kept)
            self._kept = len(self._pending)
        return at

    def _drop_pending(self) -> None:
        self._pending.clear()
        self._kept = 0

    def _restart(self, why: str) -> None:
        self._drop_pending()
        self._restarts += 1
        if self._restarts > self._limits.restarts:
            self._partial.discard()
            raise BundleError(f"{self._wanted.path}: {why}, also after {self._limits.restarts} new beginnings; refused")
        self._partial.forget()
