"""Pace of a candidate against the running model, on a clock by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.update.trial.pace import Paces, measure, problem

FRAMES = [np.zeros((16, 16), np.uint8)]


class Board:
    """A clock that each look moves on; `taken_away` counts what the system took."""

    def __init__(self) -> None:
        self.now_ns = self.away = self.looks = 0

    def look(self, ms: float, spike_every: int = 0, spike_ms: float = 0.0, away: bool = False) -> object:
        def look(_: object) -> None:
            self.looks += 1
            spike = spike_every and self.looks % spike_every == 0
            self.now_ns += round((spike_ms if spike else ms) * 1e6)
            self.away += bool(spike and away)

        return look

    def measure(self, candidate: object, running: object) -> Paces:
        return measure(candidate, running, FRAMES, 50, lambda: self.now_ns, lambda: self.away)  # type: ignore[arg-type]


def test_both_are_measured_in_the_same_breath() -> None:
    board = Board()
    paces = board.measure(board.look(3.0), board.look(1.0))
    assert paces == Paces(3.0, 3.0, 1.0, 1.0)
    assert problem(paces, 2.0, 20.0, 0.5).startswith("too slow: p50 3.00 ms")
    assert problem(paces, 4.0, 20.0, 0.5) == ""
    assert problem(paces, 4.0, 5.0, 0.5).startswith("too slow: p99 3.00 ms, more than 2.50 ms")


def test_what_the_system_took_away_does_not_count() -> None:
    board = Board()
    paces = board.measure(board.look(2.0, 10, 30.0, away=True), board.look(2.0))
    assert paces.p99_ms == 2.0


def test_its_own_spikes_count() -> None:
    board = Board()
    paces = board.measure(board.look(2.0, 11, 30.0), board.look(2.0))
    assert problem(paces, 2.0, 20.0, 0.5).startswith("too slow: p99")


@pytest.mark.parametrize(("own_ms", "reason"), [(12.0, ""), (14.9, ""), (15.1, "too slow: p99 15.10 ms")])
def test_a_board_that_is_too_slow_for_what_runs_refuses_only_what_is_slower(own_ms: float, reason: str) -> None:
    assert problem(Paces(own_ms, own_ms, 12.0, 12.0), 2.0, 20.0, 0.5).startswith(reason)
    assert bool(problem(Paces(own_ms, own_ms, 12.0, 12.0), 2.0, 20.0, 0.5)) == bool(reason)


def test_nothing_runs_yet() -> None:
    board = Board()
    paces = measure(board.look(3.0), None, FRAMES, 5, lambda: board.now_ns, lambda: 0)  # type: ignore[arg-type]
    assert paces.measured == {"p50_ms": 3.0, "p99_ms": 3.0}
