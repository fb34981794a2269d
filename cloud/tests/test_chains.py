"""What the cloud proves to itself at every commit: links joined on sequence, ranges given up, keys that stay the same."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from cloud.store import queries
from cloud.store import tables as t
from cloud.store.intervals import Given, Span, merged, reach, runs
from cloud.store.opening import open_store
from cloud.tests.databases import commit
from cloud.tests.made import CHAIN, batch, chained, event
from edge_runtime.wire.batch import Ack, Shed, shed_count

H = "0" * 64
numbers = st.sets(st.integers(1, 60))


@given(numbers)
def test_runs_are_the_numbers(seqs: set[int]) -> None:
    spans = runs(sorted(seqs))
    assert {n for s in spans for n in range(s.first, s.last + 1)} == seqs
    assert all(a.last + 1 < b.first for a, b in itertools.pairwise(spans))


@given(
    numbers,
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 20), st.sampled_from([0, 2, 5])), max_size=4),
    st.integers(0, 30),
)
def test_the_reach_is_that_of_counting(seqs: set[int], given_up: list[tuple[int, int, int]], head: int) -> None:
    given = [Given(first, first + more, every) for first, more, every in given_up]
    there = seqs | {n for g in given for n in range(g.first, g.last + 1) if not g.every or n % g.every}
    expected = head
    while expected + 1 in there:
        expected += 1
    assert reach(head, [s for s in merged(runs(sorted(seqs))) if s.last > head], given) == expected


def findings(engine: Engine) -> list[tuple[str, int]]:
    with engine.connect() as connection:
        return [
            tuple(row) for row in connection.execute(select(t.finding.c.kind, t.finding.c.seq).order_by(t.finding.c.id))
        ]


def put(engine: Engine, events: Sequence[Any], **more: Any) -> Ack:
    return commit(engine, [batch(events, **more)], 1)[0][1]


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(1, 9)), st.integers(1, 4))
def test_honest_records_in_any_order_leave_no_finding(order: list[int], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = open_store(f"sqlite:///{Path(folder) / 'c.db'}")
        events = {e.seq: e for e in chained(event(n) for n in range(1, 9))}
        for i in range(0, 8, size):
            ack = put(engine, [events[n] for n in order[i : i + size]])
        assert ack.committed == {"decision": 8}
        assert findings(engine) == []
        engine.dispose()


@pytest.mark.parametrize("late", [False, True])
def test_a_changed_record_breaks_the_link_after_it(engine: Engine, late: bool) -> None:
    events = chained(event(n) for n in range(1, 5))
    events[1] = events[1]._replace(body={"forged": True})
    parts = [events[2:], events[:2]] if late else [events]
    for part in parts:
        put(engine, part)
    assert findings(engine) == [("broken_link", 3)]


def test_islands_and_what_was_given_up(engine: Engine) -> None:
    events = chained(event(n, "metric", "k") for n in range(1, 41))
    assert put(engine, events[20:22]).islands == {"metric": [Span(21, 22)]}
    thin = Shed(1, "metric", 1, 20, 10, shed_count(1, 20, 10), "thin", H, H, H, 1, 2)
    ack = put(engine, [events[9]], shed=[thin])
    assert (ack.committed, ack.shed) == ({"metric": 19}, 1)
    assert put(engine, [events[19]]).committed == {"metric": 22}
    grown = [replace(thin, id=2, first=23, last=30, count=8, every=0, policy="evict_oldest")]
    assert put(engine, [], shed=grown, device="dev1").committed == {"metric": 30}


def test_the_latest_state_is_that_of_the_newest_chain(engine: Engine) -> None:
    put(engine, [event(9, "metric", "control", n=9)])
    put(engine, [event(1, "metric", "control", n=1)._replace(chain="f" * 16)])
    (device,) = queries.devices(engine)
    assert device["latest"]["metric/control"]["body"] == {"n": 1}


def test_a_repeat_is_counted(engine: Engine) -> None:
    events = chained(event(n) for n in range(1, 4))
    put(engine, events)
    put(engine, events[:2])
    with engine.connect() as connection:
        assert connection.execute(select(t.stream_head.c.duplicates)).scalar_one() == 2


def test_a_chain_keeps_its_key_and_a_new_one_may_have_another(engine: Engine) -> None:
    other = Ed25519PrivateKey.generate()
    put(engine, [event(1)])
    assert commit(engine, [batch([event(2)], key=other)], 1) == []
    assert findings(engine)[-1][0] == "foreign_key"
    second = "f" * 16
    anew = [event(1)._replace(chain=second, prev=H)]
    assert commit(engine, [batch(anew, key=other)], 1)[0][1].committed == {"decision": 1}
    assert "key_changed" in {kind for kind, _ in findings(engine)}
    with engine.connect() as connection:
        assert set(connection.execute(select(t.event.c.chain)).scalars()) == {CHAIN, second}
