"""`gudgeon fleet`: what counts as a connection and what as a second, on made-up logs; a worker's loop against a real broker."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import UsageError
from tools.fleet.brokers import Line, clients, connections_ns
from tools.fleet.main import parse
from tools.fleet.rate import SECOND_NS, peak_per_s
from tools.fleet.run import Wanted


@given(st.lists(st.integers(0, 5 * SECOND_NS), max_size=60))
def test_the_peak_is_that_of_the_fullest_second(times_ns: list[int]) -> None:
    fullest = max((sum(t <= other < t + SECOND_NS for other in times_ns) for t in times_ns), default=0)
    assert peak_per_s(times_ns) == fullest


def log(*texts: str) -> Sequence[Line]:
    return [Line(10 * (i + 1), text) for i, text in enumerate(texts)]


def test_a_connection_counts_also_when_nothing_came_of_it_but_not_when_it_is_the_clouds() -> None:
    lines = log(
        "1: New connection from 127.0.0.1:1 on port 1883.",
        "1: New client connected from 127.0.0.1:1 as gudgeon-fleet-00001 (p5, c1, k30).",
        "1: New connection from 127.0.0.1:2 on port 1883.",
        "1: New client connected from 127.0.0.1:2 as gudgeon-cloud-1a2b (p5, c1, k30).",
        "1: New connection from 127.0.0.1:3 on port 1883.",
        "2: New connection from 127.0.0.1:4 on port 1883.",
        "2: New client connected from 127.0.0.1:4 as gudgeon-fleet-00001 (p5, c1, k30).",
    )
    assert connections_ns(lines, 0) == [10, 50, 60]
    assert connections_ns(lines, 15) == [50, 60]
    assert clients(lines, 0) == {"gudgeon-fleet-00001": 20}
    assert clients(lines, 25) == {"gudgeon-fleet-00001": 70}


def test_the_plan_of_a_run() -> None:
    wanted = Wanted(1000, 20, 30.0, 5.0, 10.0, 8, False)
    assert wanted.limit == pytest.approx(33.33, abs=0.01)
    assert wanted.every_s * 20 == pytest.approx(2 * 37.5 + 15.0)


@pytest.mark.parametrize("args", [["--devices", "0"], ["--spread-s", "0"], ["--down-s", "0"], ["--workers", "99"]])
def test_options_out_of_bounds_are_told(args: list[str]) -> None:
    with pytest.raises(UsageError, match=rf"{args[0]} {args[1]}: expected"):
        parse(args)
