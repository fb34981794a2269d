"""Lanes: how much is under way, and when it no longer is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.link.lanes import LEAST_RECORDS, MOST_RECORDS, QUEUE_S, SHORTEST_OF_S, Lane, Shortest, next_size
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
    for n in range(10, 40):
        lane.add(records(("metric", n + 1, n + 1)), 0)
        lane.acknowledged({"metric": n + 1}, {}, S // 10)
    assert lane.size == MOST_RECORDS
    lane.add(records(("metric", 50, 50)), 0)
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


def settle(shortest_s: float, record_s: float, batches: int = 400) -> int:
    """The size that a lane that yields comes to, where an acknowledgement takes so long for a batch and each record."""
    shortest, now_ns = Shortest(), 0
    lane = Lane(1, shortest=shortest, yields=True)
    shortest.see(shortest_s, 0)
    for n in range(batches):
        lane.add(records(("metric", n + 1, n + 1)), now_ns)
        now_ns += round((shortest_s + record_s * lane.size) * 1e9)
        shortest.see(shortest_s, now_ns)  # a live record came through at once
        lane.acknowledged({"metric": n + 1}, {}, now_ns)
    return lane.size


def test_the_backlog_lets_no_queue_build_up() -> None:
    assert settle(0.005, 0.00001) == MOST_RECORDS
    assert 0.6 * QUEUE_S <= 0.0001 * settle(0.005, 0.0001) <= 1.3 * QUEUE_S
    assert settle(0.005, 0.001) == LEAST_RECORDS


def test_a_long_line_is_no_queue() -> None:
    assert settle(0.6, 0.0001) == MOST_RECORDS


def test_a_slow_line_gets_small_batches() -> None:
    assert settle(0.2, 0.1) <= 25
    assert settle(0.2, 2.5) == 1


def test_the_shortest_is_forgotten_after_two_windows() -> None:
    shortest, s = Shortest(), 1_000_000_000
    shortest.see(0.01, 0)
    shortest.see(0.2, round(1.5 * SHORTEST_OF_S * s))
    assert shortest.quick_s == 0.01 + QUEUE_S
    shortest.see(0.2, round(2.5 * SHORTEST_OF_S * s))
    assert shortest.quick_s == 0.2 + 0.1
    shortest.see(0.3, round(9.5 * SHORTEST_OF_S * s))
    assert shortest.quick_s == 0.3 + 0.15


@given(st.integers(1, MOST_RECORDS), st.floats(0, 100), st.floats(0, 10))
def test_a_size_stays_within_its_bounds(size: int, took_s: float, quick_s: float) -> None:
    assert 1 <= next_size(size, took_s, quick_s) <= MOST_RECORDS
