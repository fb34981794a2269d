"""Polling on a fake clock: phase, back-off, the share of silent units, gaps, half-written values."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.errors import EndpointError
from edge_runtime.field.memory import MemoryDriver
from edge_runtime.field.scan import DEAD_SHARE, Bus, Group, Scanner, Unit
from edge_runtime.field.source import ReportQueue
from edge_runtime.field.tag import Gap, Quality, Reason, Report, Sample, Tag, Wave

FLOW, HEAT = Tag("flow", "float32", report_every_s=1e6), Tag("heat", "float32", report_every_s=1e6)
TIMEOUT_S = 0.5


class SlowDriver(MemoryDriver):
    """A unit whose silence takes its time-out, and whose answer takes `answer_s`."""

    def __init__(self, values: dict[str, float], clock: FakeClock, answer_s: float = 0.01) -> None:
        super().__init__(dict(values), clock)
        self.clock, self.answer_s, self.reads, self.tries = clock, answer_s, 0, 0

    def connect(self) -> None:
        self.tries += 1
        self._spend()
        super().connect()

    def read(self, tags: Sequence[Tag]) -> list[Sample]:
        self.reads += 1
        self._spend()
        return super().read(tags)

    def _spend(self) -> None:
        self.clock.advance(self.answer_s if self.alive else TIMEOUT_S)


class Rig:
    """A Bus on a fake clock; `run` advances it."""

    def __init__(self, *units: tuple[str, SlowDriver, Sequence[Group]], clock: FakeClock) -> None:
        self.clock, self.reports = clock, list[Report]()
        self.units = [Unit(name, driver, groups, random.Random(1)) for name, driver, groups in units]
        self.bus = Bus(self.units, self.reports.append, clock)

    def run(self, seconds: float) -> list[Report]:
        self.reports.clear()
        end_ns = self.clock.monotonic_ns() + round(seconds * 1e9)
        while self.clock.monotonic_ns() < end_ns:
            self.clock.advance(self.bus.step())
        return list(self.reports)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def rig_of_two(clock: FakeClock) -> tuple[Rig, SlowDriver, SlowDriver]:
    one, two = SlowDriver({"flow": 1.0}, clock), SlowDriver({"heat": 2.0}, clock)
    return Rig(("one", one, [Group(0.1, (FLOW,))]), ("two", two, [Group(0.1, (HEAT,))]), clock=clock), one, two


def test_groups_are_read_at_their_periods(clock: FakeClock) -> None:
    driver = SlowDriver({"flow": 1.0, "heat": 2.0}, clock, answer_s=0.001)
    rig = Rig(("one", driver, [Group(0.1, (FLOW,)), Group(1.0, (HEAT,))]), clock=clock)
    rig.run(10.0)
    assert 108 <= driver.reads <= 112
    assert rig.units[0].health.late == 0


def test_a_value_that_stands_still_is_told_once(clock: FakeClock) -> None:
    rig, _, _ = rig_of_two(clock)
    assert [r.tag for r in rig.run(5.0)] == ["flow", "heat"]
    assert rig.run(5.0) == []


def test_a_silent_unit_takes_at_most_its_share_of_the_line(clock: FakeClock) -> None:
    rig, one, two = rig_of_two(clock)
    rig.run(1.0)
    two.alive = False
    rig.run(10.0)
    one.reads, two.tries = 0, 0
    rig.run(200.0)
    assert two.tries >= 3, "it must be tried again"
    assert two.tries * TIMEOUT_S <= 200 * DEAD_SHARE + TIMEOUT_S
    assert one.reads >= 2000 * (1 - DEAD_SHARE) - 10


def test_many_silent_units_share_the_share(clock: FakeClock) -> None:
    drivers = [SlowDriver({"flow": 1.0}, clock)] + [SlowDriver({}, clock) for _ in range(20)]
    for driver in drivers[1:]:
        driver.alive = False
    rig = Rig(*((f"u{n}", d, [Group(0.1, (Tag(f"flow{n}" if n else "flow", "float32"),))]) for n, d in enumerate(drivers)),
              clock=clock)  # fmt: skip
    rig.run(60.0)
    before = drivers[0].reads
    rig.run(100.0)
    assert drivers[0].reads - before >= 1000 * (1 - DEAD_SHARE) - 30
    assert all(d.tries >= 2 for d in drivers[1:])


def test_an_outage_is_told_once_and_ends_with_a_gap(clock: FakeClock) -> None:
    rig, one, _ = rig_of_two(clock)
    rig.run(1.05)
    last_good_ns = clock.monotonic_ns()
    one.alive = False
    told = rig.run(20.0)
    assert [(r.tag, r.quality, r.reason) for r in told if isinstance(r, Sample)] == [
        ("flow", Quality.BAD, Reason.NO_ANSWER)
    ]
    assert not rig.units[0].health.answers
    one.alive = True
    gap, sample = rig.run(40.0)
    assert isinstance(gap, Gap)
    assert isinstance(sample, Sample)
    assert (gap.tag, sample.value, gap.to_mono_ns) == ("flow", 1.0, sample.mono_ns)
    assert last_good_ns - 0.3e9 <= gap.from_mono_ns <= last_good_ns
    assert (rig.units[0].health.gaps, rig.units[0].health.answers) == (1, True)


def test_a_bad_point_leaves_the_others_alone_and_gets_its_own_gap(clock: FakeClock) -> None:
    driver = SlowDriver({"flow": 1.0, "heat": 2.0}, clock)
    rig = Rig(("one", driver, [Group(0.1, (FLOW, HEAT))]), clock=clock)
    rig.run(1.0)
    del driver.values["flow"]
    driver.values["heat"] = 3.0
    told = {r.tag: r for r in rig.run(1.0)}
    assert isinstance(told["flow"], Sample)
    assert (told["flow"].reason, rig.units[0].health.answers) == (Reason.REFUSED, True)
    assert isinstance(told["heat"], Sample)
    assert told["heat"].value == 3.0
    driver.values["flow"] = 1.5
    assert [type(r) for r in rig.run(1.0)] == [Gap, Sample]


def test_a_half_written_value_is_read_again_and_never_told(clock: FakeClock) -> None:
    tag = Tag("flow", "float32", max_step=10.0, report_every_s=1e6)

    class Torn(SlowDriver):
        def read(self, tags: Sequence[Tag]) -> list[Sample]:
            samples = super().read(tags)
            if self.reads % 7 == 3:
                samples[0] = Sample("flow", 9e9, Quality.GOOD, samples[0].mono_ns, samples[0].wall_ns)
            return samples

    rig = Rig(("one", Torn({"flow": 1.0}, clock), [Group(0.1, (tag,))]), clock=clock)
    assert [r.value for r in rig.run(20.0) if isinstance(r, Sample)] == [1.0]


def test_a_reading_that_took_too_long_is_counted_and_not_made_up_for(clock: FakeClock) -> None:
    driver = SlowDriver({"flow": 1.0}, clock, answer_s=0.25)
    rig = Rig(("one", driver, [Group(0.1, (FLOW,))]), clock=clock)
    rig.run(30.0)
    assert 95 <= driver.reads <= 121
    assert rig.units[0].health.late > 100


def test_waves_are_told_each_time(clock: FakeClock) -> None:
    driver = SlowDriver({"flow": 1.0}, clock)
    driver.waves["vibration"] = [1.0, -1.0]
    tag = Tag("vibration", "int16", count=2, rate_hz=1000.0)
    rig = Rig(("one", driver, [Group(1.0, (FLOW, tag))]), clock=clock)
    waves = [r for r in rig.run(3.5) if isinstance(r, Wave)]
    assert [w.values for w in waves] == [(1.0, -1.0)] * len(waves)
    assert len(waves) == 4


def test_a_fault_of_ours_stops_neither_its_neighbour_nor_the_thread() -> None:
    class Broken(MemoryDriver):
        def read(self, tags: Sequence[Tag]) -> list[Sample]:
            raise RuntimeError("a fault of ours")

    queue = ReportQueue()
    good = Unit("good", MemoryDriver({"flow": 1.0}), [Group(0.01, (FLOW,))])
    bad = Unit("broken", Broken({"heat": 1.0}), [Group(0.01, (HEAT,))])
    scanner = Scanner([Bus([bad, good], queue.put)])
    scanner.start()
    try:
        told: list[Report] = []
        while len(told) < 2:
            told += queue.take(5.0)
        assert sorted((r.tag, r.reason) for r in told if isinstance(r, Sample)) == [
            ("flow", Reason.NONE), ("heat", Reason.NO_ANSWER),
        ]  # fmt: skip
        assert [h.answers for h in scanner.health()] == [False, True]
        assert "a fault of ours" in scanner.health()[0].problem
    finally:
        scanner.stop()


def test_the_queue_keeps_the_newest_and_says_what_went() -> None:
    queue = ReportQueue(limit=3)
    for second in range(6):
        queue.put(Sample("flow", second, Quality.GOOD, second, 100 + second))
    queue.put(Sample("heat", 0, Quality.GOOD, 9, 109))
    gap, *rest = queue.take()
    assert isinstance(gap, Gap)
    assert (gap.tag, gap.from_mono_ns, gap.to_mono_ns, gap.from_wall_ns, queue.dropped) == ("flow", 0, 4, 100, 4)
    assert [r.tag for r in rest] == ["flow", "flow", "heat"]
    assert queue.take() == []


def test_an_endpoint_that_was_never_there_gives_bad_values_and_no_gap(clock: FakeClock) -> None:
    driver = SlowDriver({"flow": 1.0}, clock)
    driver.alive = False
    rig = Rig(("one", driver, [Group(0.1, (FLOW,))]), clock=clock)
    assert [r.reason for r in rig.run(5.0) if isinstance(r, Sample)] == [Reason.NO_ANSWER]
    driver.alive = True
    assert [type(r) for r in rig.run(40.0)] == [Sample]
    with pytest.raises(EndpointError):
        MemoryDriver().read([FLOW])
