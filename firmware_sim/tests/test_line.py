from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_sim.line import SLIP_S, Conveyor, Layout


def drain(belt: Conveyor, limit: int = 10_000) -> list[tuple[str, int, float]]:
    out: list[tuple[str, int, float]] = []
    for _ in range(limit):
        due = belt.next_due_s()
        if due is None:
            break
        arrival = belt.take(due)
        assert arrival is not None
        out.append((arrival.place, arrival.part_index, due))
    return out


@given(st.integers(0, 1000), st.floats(0.5, 50), st.floats(0, 0.9), st.floats(1, 400))
def test_every_part_is_inspected_once_in_order_and_then_meets_the_gate(
    seed: int, rate: float, jitter: float, gate_mm: float
) -> None:
    belt = Conveyor(Layout(rate, 500.0, jitter, gate_mm), seed, limit=20)
    belt.run(0.0)
    events = drain(belt)
    inspected = [(i, t) for place, i, t in events if place == "inspection"]
    gates = [(i, t) for place, i, t in events if place == "gate"]
    assert [i for i, _ in inspected] == [i for i, _ in gates] == list(range(20))
    assert [t for *_, t in events] == sorted(t for *_, t in events)
    for (_, seen_s), (_, gate_s) in zip(inspected, gates, strict=True):
        assert abs(gate_s - seen_s - gate_mm / 500.0) < 1e-6
    gaps = [b - a for (_, a), (_, b) in itertools.pairwise(inspected)]
    assert all((1 - jitter) / rate - 1e-6 <= gap <= (1 + jitter) / rate + 1e-6 for gap in gaps)


def test_equal_seeds_give_equal_belts_and_several_parts_stand_between() -> None:
    layout = Layout(20.0, 500.0, 0.2, 150.0)
    first, second = Conveyor(layout, 3, 50), Conveyor(layout, 3, 50)
    for belt in (first, second):
        belt.run(10.0)
    assert drain(first) == drain(second)
    belt = Conveyor(layout, 3, 50)
    belt.run(0.0)
    most = 0
    while (due := belt.next_due_s()) is not None:
        belt.take(due)
        most = max(most, belt.between)
    assert most >= 5


def test_planned_time_is_the_time_on_a_belt_that_never_stops() -> None:
    belt = Conveyor(Layout(), 5, 10)
    planned = [belt.planned_s(i) for i in range(10)]
    belt.run(0.0)
    assert [round(t, 9) for place, _, t in drain(belt) if place == "inspection"] == [round(p, 9) for p in planned]


def test_a_belt_that_stands_stays_where_it_is() -> None:
    belt = Conveyor(Layout(jitter=0.0), 1)
    belt.run(0.0)
    belt.stop(0.05)
    assert belt.position_mm(9.0) == 25.0
    assert belt.next_due_s() is None
    belt.run(10.0)
    assert belt.next_due_s() == pytest.approx(10.05)
    assert belt.encoder(10.0201) == 350


def test_a_late_simulator_holds_the_belt_instead_of_sending_two_parts_at_once() -> None:
    belt = Conveyor(Layout(jitter=0.0, gate_distance_mm=1e6), 1)
    belt.run(0.0)
    assert belt.take(0.5) is not None
    assert belt.take(0.5) is None
    assert belt.slips == 1
    due = belt.next_due_s()
    assert due is not None
    assert abs(due - (0.5 + 0.1 - SLIP_S)) < 1e-9


def test_a_part_is_left_at_the_inspection_until_its_frame_is_ready() -> None:
    belt = Conveyor(Layout(jitter=0.0), 1)
    belt.run(0.0)
    assert belt.take(0.1, inspect=False) is None
    assert belt.take(0.1) is not None


def test_the_encoder_has_32_bits() -> None:
    belt = Conveyor(Layout(), 1, limit=0)
    belt.run(0.0)
    assert belt.encoder(2**32 / 5000.0 + 1.0) == 5000
