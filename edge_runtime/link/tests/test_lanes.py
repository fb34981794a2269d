"""Lanes: how much is under way, and when it no longer is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.link.lanes import MOST_RECORDS, Lane
from edge_runtime.wire.envelope import Record

S = 1_000_000_000


def records(*spans: tuple[str, int, int]) -> list[Record]:
    return [Record(stream, seq, b"{}") for stream, first, last in spans for seq in range(first, last + 1)]


@given(st.integers(1, 5), st.lists(st.integers(1, 4), max_size=20))
def test_a_lane_never_holds_more_than_its_limit_and_forgets_what_is_committed(limit: int, sizes: list[int]) -> None:
    lane, seq = Lane(limit), 0
    for size in sizes:
        if lane.has_room:
            lane.add(records(("decision", seq + 1, seq + size)), 0)
            seq += size
        else:
            lane.acknowledged({"decision": seq}, {}, 0)
            assert lane.has_room
        assert lane.sent.get("decision", 0) == seq


def test_a_batch_waits_for_all_of_its_streams_and_times_out() -> None:
    lane = Lane(1, timeout_s=10)
    lane.add(records(("fault", 1, 1), ("decision", 1, 3)), 0)
    lane.acknowledged({"decision": 3}, {}, 0)
    assert not lane.has_room
    assert not lane.timed_out(10 * S)
    assert lane.timed_out(10 * S + 1)
    lane.acknowledged({"decision": 3, "fault": 1}, {}, 0)
    assert lane.has_room
    assert not lane.timed_out(10**15)


def test_what_is_stored_beyond_a_gap_is_no_longer_under_way() -> None:
    lane = Lane(2)
    lane.add(records(("metric", 100, 120)), 0)
    lane.acknowledged({"metric": 5}, {"metric": [[50, 60], [100, 119]]}, 0)
    lane.add(records(("metric", 121, 130)), 0)
    assert not lane.has_room
    lane.acknowledged({"metric": 5}, {"metric": [[50, 60], [100, 125]]}, 0)
    assert lane.has_room


def test_the_size_follows_the_line() -> None:
    lane = Lane(1)
    for n in range(10):
        lane.add(records(("metric", n + 1, n + 1)), 0)
        lane.acknowledged({"metric": n + 1}, {}, 3 * S)
    assert lane.size == 1
    for n in range(10, 20):
        lane.add(records(("metric", n + 1, n + 1)), 0)
        lane.acknowledged({"metric": n + 1}, {}, S // 10)
    assert lane.size == MOST_RECORDS
    lane.add(records(("metric", 30, 30)), 0)
    lane.reset()
    assert (lane.size, lane.sent, lane.has_room) == (MOST_RECORDS // 2, {}, True)


def test_a_refused_batch_does_not_hold_up_the_next() -> None:
    lane = Lane(1)
    lane.add(records(("metric", 1, 9)), 0, mid=7)
    assert lane.refused(3) is None
    refused = lane.refused(7)
    assert refused is not None
    assert refused.spans == {"metric": (1, 9)}
    assert lane.has_room
    assert lane.sent == {"metric": 9}
