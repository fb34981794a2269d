"""Limits: so many at once and so many in the long run, for one process and, in the store, for all of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from argon2 import PasswordHasher
from sqlalchemy import Engine, func, select

from cloud.access import operators
from cloud.access.limits import SKEW_NS, Limit, SharedLimit
from cloud.access.signing_in import ACCOUNT_TRIES, Passwords, TooManyError
from cloud.store import tables as t
from edge_runtime.clock import FakeClock

Make = Callable[[FakeClock], Limit | SharedLimit]


@pytest.fixture(params=["memory", "store"])
def make(request: pytest.FixtureRequest, engine: Engine) -> Make:
    if request.param == "store":
        return lambda clock: SharedLimit(engine, "test", 0.5, 3, clock.wall_ns)
    return lambda clock: Limit(0.5, 3, lambda: clock.monotonic_ns() / 1e9)


def test_so_many_at_once_and_then_slowly(make: Make) -> None:
    clock = FakeClock()
    limit = make(clock)
    assert [limit.take("a") for _ in range(5)] == [True] * 3 + [False] * 2
    assert limit.wait_s("a") == pytest.approx(2.0)
    assert limit.wait_s("b") == 0.0
    clock.advance(2.1)
    assert [limit.take("a") for _ in range(2)] == [True, False]
    clock.advance(3600)
    assert [limit.take("a") for _ in range(4)] == [True] * 3 + [False]


def test_two_servers_count_together_and_a_restart_forgets_nothing(engine: Engine) -> None:
    clock = FakeClock()
    one, other = (SharedLimit(engine, "test", 0.5, 10, clock.wall_ns) for _ in range(2))
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda n: (one, other)[n % 2].take("a"), range(30)))
    assert taken.count(True) == 10
    assert not SharedLimit(engine, "test", 0.5, 10, clock.wall_ns).take("a")
    assert SharedLimit(engine, "another", 0.5, 10, clock.wall_ns).take("a")


def test_two_servers_whose_clocks_differ_give_nothing_away(sqlite: Engine) -> None:
    clock = FakeClock()
    ahead = SharedLimit(sqlite, "test", 0.01, 3, lambda: clock.wall_ns() + SKEW_NS // 2)
    behind = SharedLimit(sqlite, "test", 0.01, 3, clock.wall_ns)
    assert sum(limit.take("a") for _ in range(10) for limit in (ahead, behind)) == 3


def test_a_clock_that_was_set_back_locks_nobody_out(sqlite: Engine) -> None:
    clock = FakeClock()
    limit = SharedLimit(sqlite, "test", 0.01, 3, clock.wall_ns)
    assert [limit.take("a") for _ in range(4)] == [True] * 3 + [False]
    clock.advance(-86_400)
    assert limit.wait_s("a") == 0.0
    assert [limit.take("a") for _ in range(4)] == [True] * 3 + [False]


def test_what_is_full_again_is_forgotten(sqlite: Engine) -> None:
    clock = FakeClock()
    limit = SharedLimit(sqlite, "test", 1.0, 5, clock.wall_ns)
    for n in range(50):
        assert limit.take(f"10.0.0.{n}")
    clock.advance(6)
    limit.take("a")
    with sqlite.connect() as connection:
        assert connection.execute(select(func.count()).select_from(t.attempt)).scalar_one() == 1


def test_passwords_are_guessed_at_one_account_through_many_servers_no_oftener(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, quick = FakeClock(), PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(operators, "hasher", lambda: quick)
    monkeypatch.setattr(operators, "_nobody", lambda: quick.hash("x" * 12))
    servers = [Passwords(engine, clock.wall_ns) for _ in range(3)]
    tried = 0
    for n in range(20):
        try:
            assert servers[n % 3].actor("ada\x00", "x", f"10.0.0.{n}") is None, "a name that nobody can have"
            tried += 1
        except TooManyError:
            pass
    assert tried == ACCOUNT_TRIES
