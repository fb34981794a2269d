"""Clocks and the one way to write a state machine."""

from __future__ import annotations

from enum import Enum

from edge_runtime.clock import Clock, FakeClock, SystemClock
from edge_runtime.machine import Table, step


def test_the_real_clock_is_monotonic_and_sleeps() -> None:
    clock: Clock = SystemClock()
    start = clock.monotonic_ns()
    clock.sleep(0.001)
    assert clock.monotonic_ns() - start >= 1_000_000
    assert clock.wall_ns() > 1_600_000_000_000_000_000


def test_the_fake_clock_moves_only_when_told() -> None:
    clock = FakeClock(monotonic_ns=5, wall_ns=7)
    assert (clock.monotonic_ns(), clock.wall_ns()) == (5, 7)
    assert (clock.monotonic_ns(), clock.wall_ns()) == (5, 7)
    clock.sleep(0.25)
    clock.advance(1.0)
    assert (clock.monotonic_ns(), clock.wall_ns()) == (1_250_000_005, 1_250_000_007)


class Light(Enum):
    RED = 1
    GREEN = 2


class Button(Enum):
    GO = 1
    HONK = 2


def test_a_step_follows_the_table_and_ignores_what_has_no_row() -> None:
    table: Table[Light, Button] = {(Light.RED, Button.GO): Light.GREEN}
    assert step(table, Light.RED, Button.GO) is Light.GREEN
    assert step(table, Light.RED, Button.HONK) is Light.RED
    assert step(table, Light.GREEN, Button.GO) is Light.GREEN
