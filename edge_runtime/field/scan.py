"""Polling: many units over many lines; what one does not answer never stalls the others.

- One thread a Bus. A Bus is what can carry one request at a time: a serial bus, a gateway, or one TCP device alone. So a
  silent device holds up at most the units behind the same line.
- On a line, the units that answer come first. A unit that does not is tried again with back-off, and all such tries together
  may take at most `DEAD_SHARE` of the line's time.
- A failed reading is one BAD report a tag (`no answer`), then silence by exception; the first good reading after it is
  preceded by a Gap from the last good one.
- Readings keep their phase: a group that could not be read in time is read once, and `late` counts it.

`Bus.step` is the whole logic and takes the time from the clock it was given; the threads only call it and wait.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from edge_runtime.backoff import Backoff
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.errors import GudgeonError
from edge_runtime.field import judge
from edge_runtime.field.source import Health, Outage, Sink
from edge_runtime.field.tag import Quality, Reason, Sample, Tag, Wave

DEAD_SHARE = 0.2  # of a line's time, for units that do not answer
RETRY_FIRST_S, RETRY_LIMIT_S = 0.2, 30.0
LONGEST_WAIT_S = 1.0
log = logging.getLogger("gudgeon")


class Reader(Protocol):
    """The part of a Driver that polling needs."""

    def connect(self) -> None: ...
    def read(self, tags: Sequence[Tag]) -> list[Sample]: ...
    def read_wave(self, tag: Tag) -> Wave: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Group:
    """Tags that are read together, every `period_s`."""

    period_s: float
    tags: tuple[Tag, ...]


class Unit:
    """One device on a Bus: its groups, when each is due, and how it does."""

    def __init__(self, name: str, reader: Reader, groups: Sequence[Group], rng: random.Random | None = None) -> None:
        self.name, self.reader, self.groups = name, reader, tuple(groups)
        self.due_ns: list[int] = [0] * len(self.groups)
        self.retry_ns = 0
        self.connected = False
        self.backoff = Backoff(RETRY_FIRST_S, RETRY_LIMIT_S, rng or random.Random())
        self.health = Health(name, False, "not tried yet")
        self.outage = Outage()
        tags = self.tags
        self.steps = {t.name: judge.Steps(t) for t in tags}
        self.news = {t.name: judge.Exceptions(t) for t in tags}

    @property
    def tags(self) -> tuple[Tag, ...]:
        return tuple(t for g in self.groups for t in g.tags)

    def next_due(self) -> tuple[int, int]:
        """(time, index of the group) of what is due next."""
        return min((due, index) for index, due in enumerate(self.due_ns))


class Bus:
    def __init__(self, units: Sequence[Unit], sink: Sink, clock: Clock | None = None) -> None:
        self.units, self._sink, self._clock = tuple(units), sink, clock or SystemClock()
        self._dead_left_ns = 0.0  # what tries of silent units may still take; below 0: used up
        self._stepped_ns: int | None = None

    def step(self) -> float:
        """Do the one thing that is due first, if any is; the seconds until the next."""
        now_ns = self._clock.monotonic_ns()
        self._earn(now_ns)
        unit = self._pick(now_ns)
        if unit is None:
            return self._wait_s(now_ns)
        try:
            if unit.connected:
                self._poll(unit, unit.next_due()[1])
            else:
                self._try(unit)
        except GudgeonError as error:
            self._failed(unit, str(error))
        except Exception as error:  # a fault of ours: told with its trace, and the other units go on
            log.exception("%s: unexpected; it is tried again", unit.name)
            self._failed(unit, f"unexpected: {type(error).__name__}: {error}")
        if not unit.connected:
            self._dead_left_ns -= self._clock.monotonic_ns() - now_ns
        return 0.0

    def close(self) -> None:
        for unit in self.units:
            unit.reader.close()
            unit.connected = False

    def _earn(self, now_ns: int) -> None:
        if self._stepped_ns is not None:
            earned = (now_ns - self._stepped_ns) * DEAD_SHARE
            self._dead_left_ns = min(0.0, self._dead_left_ns + earned)
        self._stepped_ns = now_ns

    def _pick(self, now_ns: int) -> Unit | None:
        live = [u for u in self.units if u.connected and u.next_due()[0] <= now_ns]
        if live:
            return min(live, key=lambda u: u.next_due())
        silent = [u for u in self.units if not u.connected and u.retry_ns <= now_ns]
        if silent and (self._dead_left_ns >= 0 or not any(u.connected for u in self.units)):
            return min(silent, key=lambda u: u.retry_ns)
        return None

    def _wait_s(self, now_ns: int) -> float:
        due = [u.next_due()[0] if u.connected else u.retry_ns for u in self.units]
        wait_s = max(0.001, (min(due) - now_ns) / 1e9)
        live = [u.next_due()[0] for u in self.units if u.connected]
        if live and self._dead_left_ns < 0:  # a try is due, but its time is not earned yet
            earned_s = -self._dead_left_ns / 1e9 / DEAD_SHARE
            wait_s = max(wait_s, min([earned_s, *((due_ns - now_ns) / 1e9 for due_ns in live)]))
        return min(wait_s, LONGEST_WAIT_S)

    def _try(self, unit: Unit) -> None:
        unit.reader.connect()
        unit.connected = True
        unit.health = replace(unit.health, answers=True, problem="", connects=unit.health.connects + 1)
        now_ns = self._clock.monotonic_ns()
        unit.due_ns = [now_ns] * len(unit.groups)
        log.info("%s: connected", unit.name)

    def _poll(self, unit: Unit, index: int) -> None:
        group, due_ns = unit.groups[index], unit.due_ns[index]
        self._read(unit, group)
        unit.backoff.reset()
        now_ns, period_ns = self._clock.monotonic_ns(), round(group.period_s * 1e9)
        missed = max(0, (now_ns - due_ns) // period_ns)
        unit.due_ns[index] = due_ns + (missed + 1) * period_ns
        if missed:
            unit.health = replace(unit.health, late=unit.health.late + missed)

    def _read(self, unit: Unit, group: Group) -> None:
        tags = [t for t in group.tags if t.count == 1]
        samples = unit.reader.read(tags)
        doubtful = [i for i, s in enumerate(samples) if unit.steps[s.tag].doubtful(s)]
        if doubtful:  # half-written? a second reading at once tells
            for i in doubtful:
                unit.steps[samples[i].tag].note(samples[i])
            again = unit.reader.read([tags[i] for i in doubtful])
            for i, sample in zip(doubtful, again, strict=True):
                samples[i] = sample
        for sample in samples:
            self._tell(unit, unit.steps[sample.tag].settle(sample))
        for tag in group.tags:
            if tag.count > 1:
                self._tell(unit, unit.reader.read_wave(tag))

    def _tell(self, unit: Unit, report: Sample | Wave) -> None:
        if report.quality is Quality.GOOD:
            gap = unit.outage.end(report.tag, report.mono_ns, report.wall_ns)
            if gap is not None:
                unit.health = replace(unit.health, gaps=unit.health.gaps + 1)
                self._sink(gap)
        elif report.quality is Quality.BAD:
            unit.outage.begin((report.tag,), report.reason.value)
        if isinstance(report, Wave) or unit.news[report.tag].worth(report):
            self._sink(report)

    def _failed(self, unit: Unit, problem: str) -> None:
        unit.reader.close()
        if unit.health.answers or unit.health.failures == 0:
            log.warning("%s: %s; trying again", unit.name, problem)
        unit.connected = False
        failures = unit.health.failures + 1
        unit.health = replace(unit.health, answers=False, problem=problem, failures=failures)
        now_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
        unit.retry_ns = now_ns + round(unit.backoff.next_s() * 1e9)
        unit.outage.begin(tuple(t.name for t in unit.tags), "no answer")
        for tag in unit.tags:
            sample = judge.bad(tag, Reason.NO_ANSWER, now_ns, wall_ns)
            if unit.news[tag.name].worth(sample):
                self._sink(sample)


class Scanner:
    """The threads: one a Bus. A Source."""

    def __init__(self, buses: Sequence[Bus]) -> None:
        self._buses = tuple(buses)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._run, args=(bus,), name=f"scan-{bus.units[0].name}", daemon=True)
            for bus in self._buses
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def health(self) -> tuple[Health, ...]:
        return tuple(unit.health for bus in self._buses for unit in bus.units)

    def _run(self, bus: Bus) -> None:
        try:
            while not self._stop.is_set():
                wait_s = bus.step()
                if wait_s > 0:
                    self._stop.wait(wait_s)
        finally:
            bus.close()
