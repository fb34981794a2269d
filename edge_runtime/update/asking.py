"""Asking the cloud: the status goes there, the assignment comes back, verified; and how old that answer is.

Without an answer the last assignment stays, and counts as not fresh. Where what came is not believed, none is known.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge_runtime import log
from edge_runtime.backoff import Backoff
from edge_runtime.errors import BundleError, GudgeonError
from edge_runtime.update.seams import Device, Seams
from edge_runtime.update.tuf.assigned import Taken
from edge_runtime.wire.assignment import Item
from edge_runtime.wire.update_status import UpdateStatus

FRESH_S = 20.0
FIRST_RETRY_S = 5.0


class Asking:
    """`taken`: the newest assignment, None where none is known. `error`: why there was no answer, "" where there was one.
    `next_ns`: when to ask again. `status`: what is told of this device."""

    def __init__(self, device: Device, seams: Seams, poll_s: float, status: Callable[[], UpdateStatus]) -> None:
        self._device, self._seams, self._poll_s, self._status = device, seams, poll_s, status
        self._backoff = Backoff(FIRST_RETRY_S, max(FIRST_RETRY_S, poll_s), seams.rng)
        self.taken: Taken | None = None
        self.error = ""
        self.next_ns = self._asked_ns = 0
        self._stale = True

    @property
    def fresh(self) -> bool:
        """It was asked a moment ago, and nothing took long since then."""
        return not self._stale and self._seams.clock.monotonic_ns() - self._asked_ns <= FRESH_S * 1e9

    @property
    def due(self) -> bool:
        return self._seams.clock.monotonic_ns() >= self.next_ns

    def item(self, slot_set: str) -> Item | None:
        """What is assigned to a slot set; None where nothing is, or nothing is known."""
        return self.taken.assignment.items.get(slot_set) if self.taken else None

    def outdate(self) -> None:
        """Something takes long now: it is asked again before anything starts."""
        self._stale = True

    def ask(self) -> bool:
        """True where there was an answer."""
        try:
            answer = self._seams.cloud.ask(self._status())
            self._take(answer.assignment)
        except GudgeonError as error:
            self.error = str(error)
            self._stale = True
            if isinstance(error, BundleError):
                self.taken = None
            log.say(logging.WARNING, "no assignment", reason=self.error)
            self.next_ns = self._seams.clock.monotonic_ns() + round(self._backoff.next_s() * 1e9)
            return False
        self.error = ""
        self._backoff.reset()
        self._asked_ns, self._stale = self._seams.clock.monotonic_ns(), False
        pause_s = (answer.poll_after_s or self._poll_s) * self._seams.rng.uniform(0.8, 1.2)
        self.next_ns = self._asked_ns + round(pause_s * 1e9)
        return True

    def _take(self, sealed: bytes | None) -> None:
        if sealed is None:
            self.taken = None
            return
        targets = self._seams.trust.refresh()
        self.taken = targets.take(sealed, self._device.id, frozenset(self._device.hardware))
