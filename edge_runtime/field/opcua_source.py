"""OPC UA sensors as a Source: one subscription, one thread, and no loss without a record.

- The newest value of each notification has the time of its arrival; older ones in the same queue come before it by the
  difference of the server's own times, so that a server whose clock is wrong labels nothing wrongly.
- The server reports by exception. While it keeps the subscription alive, a value that stands still is told again every
  `report_every_s`.
- After a loss the subscription is made anew. What was missed is read from the server's history where that reaches back to the
  last value that came; where it does not, a Gap says what is missing. So does a queue that overflowed in the server.
- A node that the server does not know is BAD and asked for again every `REFUSED_S`; the others are not touched.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Sequence
from dataclasses import replace

from edge_runtime.backoff import Backoff
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.errors import EndpointError, GudgeonError
from edge_runtime.field import judge
from edge_runtime.field.opcua_session import Session, Value
from edge_runtime.field.opcua_trust import TrustList
from edge_runtime.field.sections import EndpointSection
from edge_runtime.field.source import Health, Outage, Sink
from edge_runtime.field.tag import Gap, Quality, Reason, Sample, Tag, Wave

RETRY_FIRST_S, RETRY_LIMIT_S = 0.2, 30.0
REFUSED_S = 30.0
TURN_S = 0.2
LOST = "no answer"  # the cause of a gap that a history may fill
SOURCE_REASON = {Quality.GOOD: Reason.NONE, Quality.UNCERTAIN: Reason.SOURCE_UNCERTAIN, Quality.BAD: Reason.SOURCE_BAD}
log = logging.getLogger("gudgeon")


class OpcUaSource:
    """`tags`: (tag, sampling period in seconds)."""

    def __init__(
        self,
        endpoint: EndpointSection,
        tags: Sequence[tuple[Tag, float]],
        sink: Sink,
        trust: TrustList | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._endpoint, self._wanted = endpoint, tuple(tags)
        self._tags = {tag.name: tag for tag, _ in tags}
        self._sink, self._trust, self._clock = sink, trust, clock or SystemClock()
        self._backoff = Backoff(RETRY_FIRST_S, RETRY_LIMIT_S, rng or random.Random())
        self._health = Health(f"OPC UA {endpoint.name}", False, "not tried yet")
        self._outage = Outage()
        self._last: dict[str, Sample] = {}  # what was told last, by tag
        self._missed: set[str] = set()  # tags of which the connection was lost, until their first value after it
        self._told_ns: dict[str, int] = {}  # time of the newest report, by tag: they never go back
        self._source_ns: dict[str, int] = {}  # the server's time of the newest value that came
        self._steps = {name: judge.Steps(tag) for name, tag in self._tags.items()}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name=f"opcua-{self._endpoint.name}", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def health(self) -> tuple[Health, ...]:
        return (self._health,)

    def _run(self) -> None:
        if self._trust is not None and self._endpoint.security != "none":
            try:
                self._trust.prepare()
            except GudgeonError as error:
                self._failed(str(error))
                return
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                session = Session(self._endpoint, self._trust)
                try:
                    await self._use(session)
                finally:
                    await session.close()
            except GudgeonError as error:
                self._failed(str(error))
            except Exception as error:  # a fault of ours: told with its trace, and tried again
                log.exception("%s: unexpected; it is tried again", self._endpoint.name)
                self._failed(f"unexpected: {type(error).__name__}: {error}")
            await self._pause(self._backoff.next_s())

    async def _use(self, session: Session) -> None:
        """Connect, subscribe and pass on what comes; returns when asked to stop, raises when the connection is lost."""
        await session.open()
        refused = await session.subscribe(self._wanted)
        self._refuse(refused)
        self._backoff.reset()
        self._health = replace(self._health, answers=True, problem="", connects=self._health.connects + 1)
        log.info("%s: connected", self._endpoint.name)
        asked_ns = self._clock.monotonic_ns()
        while not self._stop.is_set():
            try:
                async with asyncio.timeout(TURN_S):
                    await session.arrived.wait()
            except TimeoutError:
                pass
            await self._pass_on(session)
            if session.lost.is_set():
                raise EndpointError(f"{session.name}: the connection is lost")
            if session.quiet_s > session.quiet_limit_s:
                raise EndpointError(f"{session.name}: the subscription is silent for {session.quiet_s:.1f} s")
            self._repeat(session)
            if refused and self._clock.monotonic_ns() - asked_ns > REFUSED_S * 1e9:
                asked_ns = self._clock.monotonic_ns()
                refused = await session.add([(t, p) for t, p in self._wanted if t.name in refused])

    async def _pass_on(self, session: Session) -> None:
        came: dict[str, list[Value]] = {}
        for name, value in session.take():
            came.setdefault(name, []).append(value)
        for name, values in came.items():
            tag, mono_ns, wall_ns = self._tags[name], self._clock.monotonic_ns(), self._clock.wall_ns()
            if name in self._missed:
                self._missed.discard(name)
                await self._fill(session, tag, values[0], mono_ns, wall_ns)
            newest_ns = values[-1].source_ns
            for value in values:
                before_ns = max(0, newest_ns - value.source_ns) if value.source_ns else 0
                self._tell(tag, value, mono_ns - before_ns, wall_ns - before_ns)

    async def _fill(self, session: Session, tag: Tag, first: Value, mono_ns: int, wall_ns: int) -> None:
        """Back-fill an outage of this tag from the history, if that has all of it."""
        last_ns = self._source_ns.get(tag.name, 0)
        if not self._endpoint.history or not last_ns or not first.source_ns or first.quality is not Quality.GOOD:
            return
        if first.source_ns == last_ns:  # it has not changed since; the server remembers it
            self._outage.filled(tag.name, LOST)
            return
        missed = await session.history(tag, last_ns, first.source_ns)
        if not missed or missed[0].source_ns > last_ns:
            return  # it does not reach back to the last value: there is a gap
        self._outage.filled(tag.name, LOST)
        for value in missed[1:]:
            if last_ns < value.source_ns < first.source_ns:
                before_ns = first.source_ns - value.source_ns
                self._tell(tag, value, mono_ns - before_ns, wall_ns - before_ns)

    def _tell(self, tag: Tag, value: Value, mono_ns: int, wall_ns: int) -> None:
        behind_ns = max(0, self._told_ns.get(tag.name, 0) + 1 - mono_ns)  # two notifications may come almost together
        mono_ns, wall_ns = mono_ns + behind_ns, wall_ns + behind_ns
        self._told_ns[tag.name] = mono_ns
        if tag.count > 1:
            report: Sample | Wave = judge.wave(tag, value.raw, mono_ns, wall_ns)
        else:
            reason = SOURCE_REASON[value.quality]
            report = judge.good(tag, value.raw, mono_ns, wall_ns, value.quality, reason)
            report = self._steps[tag.name].settle(report)
        before = self._outage.last(tag.name)
        if value.overflow and before is not None:
            self._gap(Gap(tag.name, before[0], mono_ns, before[1], wall_ns, "the server's queue overflowed"))
        if value.source_ns:
            self._source_ns[tag.name] = value.source_ns
        if report.quality is Quality.GOOD:
            gap = self._outage.end(tag.name, mono_ns, wall_ns)
            if gap is not None:
                self._gap(gap)
        elif report.quality is Quality.BAD:
            self._outage.begin((tag.name,), report.reason.value)
        if isinstance(report, Sample):
            self._last[tag.name] = report
        self._sink(report)

    def _repeat(self, session: Session) -> None:
        """The server has published a short time ago: what it has not said otherwise still holds."""
        heard_ns = self._clock.monotonic_ns() - round(session.quiet_s * 1e9)
        ago_ns = self._clock.monotonic_ns() - heard_ns
        for name, last in self._last.items():
            self._outage.touch(name, heard_ns, self._clock.wall_ns() - ago_ns)
            every_ns = round(self._tags[name].report_every_s * 1e9)
            if last.quality is not Quality.BAD and heard_ns - last.mono_ns >= max(1, every_ns):
                self._last[name] = replace(last, mono_ns=heard_ns, wall_ns=self._clock.wall_ns() - ago_ns)
                self._told_ns[name] = heard_ns
                self._sink(self._last[name])

    def _refuse(self, names: Sequence[str]) -> None:
        for name in names:
            log.warning("%s: the server refuses tag %s (%s)", self._endpoint.name, name, self._tags[name].node)
            self._bad(self._tags[name], Reason.REFUSED)

    def _failed(self, problem: str) -> None:
        if self._health.answers or self._health.failures == 0:
            log.warning("%s: %s; trying again", self._endpoint.name, problem)
        self._health = replace(self._health, answers=False, problem=problem, failures=self._health.failures + 1)
        self._outage.begin(tuple(self._tags), LOST)
        self._missed = set(self._tags)
        for tag in self._tags.values():
            self._bad(tag, Reason.NO_ANSWER)

    def _bad(self, tag: Tag, reason: Reason) -> None:
        """Once for each outage."""
        last = self._last.get(tag.name)
        if last is None or (last.quality, last.reason) != (Quality.BAD, reason):
            self._last[tag.name] = judge.bad(tag, reason, self._clock.monotonic_ns(), self._clock.wall_ns())
            self._sink(self._last[tag.name])

    def _gap(self, gap: Gap) -> None:
        self._health = replace(self._health, gaps=self._health.gaps + 1)
        self._sink(gap)

    async def _pause(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds / 0.05))):
            if self._stop.is_set():
                return
            await asyncio.sleep(0.05)
