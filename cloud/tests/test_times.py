"""When an Event happened: what the cloud makes of clocks that are wrong, and that it keeps what they said."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, inspect, select

from cloud.store import queries
from cloud.store import tables as t
from cloud.store.partitions import EARLY, LATE, Month, months_of
from cloud.store.times import BootClock, better
from cloud.tests.databases import commit
from cloud.tests.made import batch, chained, event
from edge_runtime.wire.envelope import Event

SECOND = 1_000_000_000
YEAR = 365 * 86_400 * SECOND
NOW = 1_790_000_000 * SECOND
EXACT = 1_000_000


def record(seq: int, mono_s: int, wall_ns: int, uncertainty: int | None, boot: str = "boot") -> Event:
    made = event(seq, "telemetry", "t", n=seq)
    return made._replace(boot_id=boot, mono_ns=mono_s * SECOND, wall_ns=wall_ns, wall_uncertainty_ns=uncertainty)


def put(engine: Engine, events: Sequence[Event], now_ns: int = NOW, **clock: Any) -> None:
    clock = {"mono_ns": events[-1].mono_ns, "wall_ns": events[-1].wall_ns} | clock
    assert commit(engine, [batch(events, boot_id=events[-1].boot_id, **clock)], now_ns)


def stamps(engine: Engine) -> list[tuple[int, int, str]]:
    """seq, time of day in whole seconds, source."""
    with engine.connect() as connection:
        e = t.event.c
        rows = connection.execute(select(e.seq, e.time_ns, e.time_source).order_by(e.seq))
        return [(seq, round(time_ns / SECOND), source) for seq, time_ns, source in rows]


def test_a_boot_that_learns_the_time_is_stamped_again(engine: Engine) -> None:
    """Records of 1970, then the clock is set: the earlier ones of that boot get the time that they had."""
    events = chained([record(1, 10, 10 * SECOND, None), record(2, 20, 20 * SECOND, None), record(3, 30, NOW, EXACT)])
    put(engine, events[:2], now_ns=NOW + 5 * SECOND)
    assert stamps(engine) == [(1, NOW // SECOND - 5, "contact"), (2, NOW // SECOND + 5, "contact")]
    put(engine, events[2:], now_ns=NOW + 60 * SECOND, wall_uncertainty_ns=EXACT)
    assert stamps(engine) == [
        (1, NOW // SECOND - 20, "boot"),
        (2, NOW // SECOND - 10, "boot"),
        (3, NOW // SECOND, "device"),
    ]
    kept = queries.events(engine, {})
    assert [row["wall_ns"] for row in kept] == [10 * SECOND, 20 * SECOND, NOW]


def test_without_a_clock_the_first_contact_tells_the_time_and_a_quicker_one_tells_it_better(engine: Engine) -> None:
    events = chained([record(1, 10, 0, None), record(2, 20, 0, None)])
    put(engine, events[:1], now_ns=NOW + 3 * SECOND)  # 3 s under way
    put(engine, events[1:], now_ns=NOW + 10 * SECOND)  # at once
    assert [row[1] for row in stamps(engine)] == [NOW // SECOND, NOW // SECOND + 10]


def test_a_boot_that_was_never_heard_keeps_what_its_clock_said(engine: Engine) -> None:
    events = chained([record(1, 10, 77 * SECOND, None, "old"), record(2, 5, NOW, EXACT, "new")])
    put(engine, events, wall_uncertainty_ns=EXACT)
    assert stamps(engine) == [(1, 77, "unknown"), (2, NOW // SECOND, "device")]


@pytest.mark.parametrize("jump", [YEAR, -YEAR, -NOW, 200 * YEAR])
def test_a_clock_that_jumps_loses_nothing_and_changes_no_order(engine: Engine, jump: int) -> None:
    """A jump of a year, back to 1970, far beyond 2100: each record once, in its order, acknowledged."""
    events = chained(record(n, n, min(NOW + n * SECOND + (jump if n > 5 else 0), 2**62), None) for n in range(1, 11))
    put(engine, events[:5])
    put(engine, events[5:])
    put(engine, events)
    with engine.connect() as connection:
        found = list(connection.execute(select(t.event.c.seq).order_by(t.event.c.id)).scalars())
        assert found == list(range(1, 11))
        assert connection.execute(select(t.stream_head.c.head, t.stream_head.c.duplicates)).one() == (10, 10)


def test_months_have_their_tables_and_odd_clocks_share_two(engine: Engine) -> None:
    walls = [NOW, 0, -5, 2**62, NOW + 40 * 86_400 * SECOND]
    put(engine, chained(record(n, n, wall, None) for n, wall in enumerate(walls, 1)))
    names = {name for name in inspect(engine).get_table_names() if name.startswith("event_")}
    if engine.dialect.name == "postgresql":
        assert names == {"event_early", "event_late", "event_2026_09", "event_2026_10"}
    assert sorted(row["wall_ns"] for row in queries.events(engine, {})) == sorted(walls)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_every_time_has_one_month_and_months_do_not_overlap(times: list[int]) -> None:
    for at in times:
        (month,) = months_of([at])
        low, high = (None if text.endswith("VALUE") else int(text) for text in month.bounds)
        assert low is None or low <= at
        assert high is None or at < high


def test_the_bounds_of_months_meet() -> None:
    months = [EARLY, *(Month(year, m) for year in range(2020, 2100) for m in range(1, 13)), LATE]
    for before, after in itertools.pairwise(months):
        assert before.bounds[1] == after.bounds[0]


def test_which_clock_is_better() -> None:
    contact, boot = BootClock(100, 10, "contact"), BootClock(50, 10, "boot")
    assert better(contact, None)
    assert better(boot, contact)
    assert not better(contact, boot)
    assert better(contact._replace(offset_ns=99), contact)
    assert not better(contact._replace(offset_ns=101), contact)
    assert better(boot._replace(uncertainty_ns=4), boot)
    assert not better(boot._replace(uncertainty_ns=6), boot)
