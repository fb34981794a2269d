"""The offset is within its uncertainty of the truth, however the exchange was delayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.clock import FakeClock
from edge_runtime.link.clock_offset import DRIFT_PPM, ClockOffset, measured
from edge_runtime.link.cloud_clock import CloudClock
from edge_runtime.link.time_floor import TimeFloor
from edge_runtime.wire.batch import Ack

S = 1_000_000_000
CLOUD_NS = 1_800_000_000 * S  # the cloud's wall time at the device's monotonic zero


def ack(sent_ns: int, there_ns: int, held_ns: int) -> Ack:
    arrived = CLOUD_NS + sent_ns + there_ns
    return Ack("0" * 16, {}, {}, 0, 1, sent_ns, arrived, arrived + held_ns)


delays = st.integers(0, 30 * S)


@given(st.integers(1, 10**15), delays, delays, delays)
def test_one_exchange_is_right_within_half_of_its_way(sent_ns: int, there_ns: int, held_ns: int, back_ns: int) -> None:
    got_ns = sent_ns + there_ns + held_ns + back_ns
    found = measured(ack(sent_ns, there_ns, held_ns), got_ns)
    assert found is not None
    assert abs(found.wall_ns(got_ns) - (CLOUD_NS + got_ns)) <= found.uncertainty_ns + 1
    assert found.uncertainty_ns <= (there_ns + back_ns) // 2 + 1


@given(st.lists(st.tuples(delays, delays, delays), min_size=1, max_size=30))
def test_many_exchanges_stay_right_and_never_get_worse_than_the_newest(ways: list[tuple[int, int, int]]) -> None:
    offset, now_ns = ClockOffset(), S
    for there_ns, held_ns, back_ns in ways:
        sent_ns, now_ns = now_ns, now_ns + there_ns + held_ns + back_ns
        offset.take(ack(sent_ns, there_ns, held_ns), now_ns)
        assert offset.cloud is not None
        assert abs(offset.cloud.wall_ns(now_ns) - (CLOUD_NS + now_ns)) <= offset.cloud.off_by_ns(now_ns) + 1
        newest = measured(ack(sent_ns, there_ns, held_ns), now_ns)
        assert newest is not None
        assert offset.cloud.off_by_ns(now_ns) <= newest.uncertainty_ns


def test_times_that_cannot_be_are_not_believed() -> None:
    good = ack(S, S, S)
    assert measured(good, 4 * S) is not None
    assert measured(good, 2 * S - 1) is None  # it came back before it left
    assert measured(Ack("0" * 16, {}, {}, 0, 1, 0, CLOUD_NS, CLOUD_NS), S) is None
    assert measured(Ack("0" * 16, {}, {}, 0, 1, S, 5, 6), 2 * S) is None  # a cloud in 1970
    assert measured(Ack("0" * 16, {}, {}, 0, 1, S, CLOUD_NS, CLOUD_NS - 1), 2 * S) is None


def test_an_old_exchange_gives_way_and_a_moved_cloud_clock_is_followed() -> None:
    offset = ClockOffset()
    offset.take(ack(S, 1000, 0), S + 2000)
    assert not offset.take(ack(2 * S, S, 0), 4 * S)  # worse
    age_ns = 10**6 * S // DRIFT_PPM
    assert offset.take(ack(S + age_ns, S, 0), 3 * S + age_ns)  # worse than it was, better than it has become
    later = Ack("0" * 16, {}, {}, 0, 1, 5 * S + age_ns, CLOUD_NS + 3600 * S, CLOUD_NS + 3600 * S)
    assert offset.take(later, 25 * S + age_ns)


class Told:
    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def __call__(self, stream: str, kind: str, body: Any) -> None:
        self.events.append((stream, kind, dict(body)))


def test_the_offset_is_told_when_known_and_when_it_changes(tmp_path: Path) -> None:
    clock, told = FakeClock(monotonic_ns=S, wall_ns=0), Told()
    path = tmp_path / "trusted_time.json"
    time = CloudClock(told, TimeFloor(path, clock), clock)
    assert time.trusted() is None
    assert time.offset_ns is None
    clock.uncertainty_ns = 5 * S
    assert time.trusted() == (0, 5 * S)
    for _ in range(3):
        clock.advance(10)
        now_ns = clock.monotonic_ns()
        time.take(ack(now_ns - S // 10, S // 20, 0), now_ns)
    assert [(s, k) for s, k, _ in told.events] == [("link", "clock_offset")]
    known = time.trusted()
    assert known is not None
    assert abs(known.wall_ns - CLOUD_NS - clock.monotonic_ns()) <= known.uncertainty_ns
    offset_ns = time.offset_ns
    assert offset_ns is not None
    assert abs(offset_ns - CLOUD_NS) < 2 * S
    clock._wall_ns += 365 * 86_400 * S  # somebody set the clock, wrongly
    now_ns = clock.monotonic_ns()
    time.take(ack(now_ns - S // 100, S // 200, 0), now_ns)
    assert len(told.events) == 2
    assert time.trusted() is not None
    assert TimeFloor(path, clock).now_ns() > CLOUD_NS  # kept for the next start
