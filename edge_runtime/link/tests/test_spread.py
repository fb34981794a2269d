"""The return of a fleet: an even rate below devices ÷ spread_s, for every second, also where the broker stays away."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.link.spread import MARGIN, place_of, spread_ns

SECOND_NS = 1_000_000_000


def peak(times_ns: list[int]) -> int:
    """The most in any window of one second."""
    times = sorted(times_ns)
    return max(bisect_left(times, t + SECOND_NS) - i for i, t in enumerate(times))


@pytest.mark.parametrize(
    ("ids", "spread_s"),
    [
        ([f"fleet-{i:04}" for i in range(1, 1001)], 30.0),
        ([f"fleet-{i:04}" for i in range(1, 51)], 5.0),
        ([f"press{i}" for i in range(900, 1100)], 10.0),
    ],
)
@pytest.mark.parametrize("down_s", [0.0, 5.0, 47.0])
def test_no_second_has_more_than_the_limit(ids: list[str], spread_s: float, down_s: float) -> None:
    """A broker that is away for `down_s`: every try counts, and every device is back within a window of its return."""
    tries: list[int] = []
    for name in ids:
        at_ns = spread_ns(name, spread_s, 0, 0)
        tries.append(at_ns)
        while at_ns < down_s * 1e9:
            at_ns = spread_ns(name, spread_s, 0, at_ns + SECOND_NS // 10)
            tries.append(at_ns)
        assert at_ns <= (down_s + MARGIN * spread_s) * 1e9
    assert peak(tries) <= len(ids) / spread_s


def test_rows_of_many_prefixes_fall_as_by_chance_together() -> None:
    """Each row is even in itself; where rows meet is chance, and so a second may be some devices over the limit."""
    ids = [f"line-{line}-station-{i}" for line in "abcdefghij" for i in range(1, 101)]
    assert peak([spread_ns(name, 60.0, 0, 0) for name in ids]) <= 1.3 * len(ids) / 60.0


def test_random_names_are_spread_by_their_hash() -> None:
    places = sorted(place_of(f"press-{name}-x") for name in range(1000))
    assert all(abs(place - i / 1000) < 0.06 for i, place in enumerate(places))  # Kolmogorov: 1.36 / sqrt(n) is 0.043


@given(
    st.text(max_size=70),
    st.floats(0.1, 3600.0),
    st.integers(0, 10**15),
    st.integers(-(10**12), 10**13),
)
def test_never_early_never_more_than_a_window_late(name: str, spread_s: float, lost_ns: int, later_ns: int) -> None:
    earliest_ns = lost_ns + later_ns
    at_ns = spread_ns(name, spread_s, lost_ns, earliest_ns)
    window_ns = round(spread_s * MARGIN * 1e9)
    assert at_ns >= max(earliest_ns, lost_ns)
    assert at_ns < max(earliest_ns, lost_ns) + window_ns
    assert at_ns == spread_ns(name, spread_s, lost_ns, earliest_ns)


def test_without_a_spread_a_device_dials_at_once() -> None:
    assert spread_ns("fleet-7", 0.0, 5, 17) == 17
