"""What is too old goes; what is left says so, and everything else is as if it were there."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, inspect, select, update

from cloud.metrics import of_store
from cloud.period import Period
from cloud.proof.statement import proof_lines
from cloud.proof.verify import Verdict, verify
from cloud.pruner import Pruner
from cloud.settings import StoreSection
from cloud.store import pruning, queries
from cloud.store import tables as t
from cloud.tests.databases import KINDS, commit, empty_store
from cloud.tests.made import batch, chained, decision, event
from edge_runtime.wire.batch import Head
from edge_runtime.wire.envelope import Event, record_hash, record_line

DAY = 86_400_000_000_000
NOW = 1_700_000_000_000_000_000
KEY = Ed25519PrivateKey.from_private_bytes(b"c" * 32)
MADE = chained(decision(n)._replace(wall_ns=NOW + n * DAY, wall_uncertainty_ns=0) for n in range(1, 41))
HEADS = {"decision": Head(40, record_hash(record_line(MADE[-1])))}


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    with empty_store(request.param, tmp_path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "PAGE", 7)


def day_by_day(engine: Engine, events: list[Event]) -> None:
    """Each stored on the day when it happened."""
    commit(engine, [batch(events, heads=HEADS)], NOW)
    with engine.begin() as connection:
        connection.execute(update(t.event).values(received_ns=t.event.c.wall_ns))


def prune(engine: Engine, day: int, keep_days: int = 10, **of_stream: int) -> int:
    return Pruner(engine, StoreSection(keep_days=keep_days, keep_days_of=of_stream), lambda: NOW + day * DAY).once()


def proof(engine: Engine, period: Period = Period()) -> Verdict:  # noqa: B008
    verdict = verify(proof_lines(engine, KEY, "dev1", period, 2 * NOW, True))
    assert verdict.problems == []
    return verdict


def stored(engine: Engine, stream: str = "decision") -> list[int]:
    return [row["seq"] for row in queries.events(engine, {"stream": stream})]


def findings(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(select(t.finding.c.seq)).scalars())


def test_what_is_too_old_goes_and_the_proof_says_so(engine: Engine) -> None:
    day_by_day(engine, MADE)
    assert prune(engine, 40) == 29
    assert stored(engine) == [row["seq"] for row in queries.decisions(engine, {})] == list(range(30, 41))
    assert prune(engine, 40) == 0
    told = proof(engine).summary()
    assert [told[name] for name in ("produced", "delivered", "pruned", "missing", "records_checked")] == [
        40, 40, 29, 0, 11,
    ]  # fmt: skip
    assert prune(engine, 1000) == 10
    assert stored(engine) == [40]
    assert proof(engine).summary()["pruned"] == 39


def test_a_repeat_of_what_is_gone_is_still_one(engine: Engine) -> None:
    day_by_day(engine, MADE)
    prune(engine, 40)
    acks = commit(engine, [batch(MADE[:5], heads=HEADS)], NOW + 40 * DAY)
    assert acks[0][1].committed == {"decision": 40}
    assert len(stored(engine)) == 11
    assert proof(engine).summary()["duplicates"] == 5


@pytest.mark.parametrize("honest", [True, False])
def test_the_next_record_is_checked_against_the_hash_that_is_left(engine: Engine, honest: bool) -> None:
    day_by_day(engine, MADE[:10])
    commit(engine, [batch([event(1, "metric")])], NOW + 99 * DAY)
    prune(engine, 100)
    assert stored(engine) == []
    following = MADE[10] if honest else MADE[10]._replace(prev="e" * 64)
    commit(engine, [batch([following], heads=HEADS)], NOW + 100 * DAY)
    assert findings(engine) == ([] if honest else [11])


def test_a_period_that_is_gone_in_part_or_whole(engine: Engine) -> None:
    day_by_day(engine, MADE)
    prune(engine, 40)
    told = proof(engine, Period(NOW + 30 * DAY, NOW + 40 * DAY)).summary()
    assert (told["produced"], told["pruned"], told["records_checked"]) == (10, 0, 10)
    whole = proof(engine, Period(NOW + 20 * DAY, NOW + 21 * DAY)).summary()
    assert whole["produced"] == whole["delivered"] == whole["pruned"] > 0
    assert whole["missing"] == whole["records_checked"] == 0


def test_streams_may_be_kept_for_different_times(engine: Engine) -> None:
    metrics = chained(event(n, "metric") for n in range(1, 21))
    for d, m in zip(MADE[:20], metrics, strict=True):
        commit(engine, [batch([d, m])], d.wall_ns)
    assert prune(engine, 20, 0, metric=5) == 14
    assert (len(stored(engine)), stored(engine, "metric")) == (20, list(range(15, 21)))
    assert prune(engine, 20, 10, metric=5, decision=0) == 0


def test_age_is_by_the_clock_of_the_cloud(engine: Engine) -> None:
    commit(engine, [batch([e._replace(wall_ns=1, wall_uncertainty_ns=0) for e in MADE[:5]])], NOW + 90 * DAY)
    assert prune(engine, 100) == 0
    assert prune(engine, 200) == 4, "the newest is kept"


def test_what_an_experiment_counts_is_kept_for_it(engine: Engine) -> None:
    day_by_day(engine, MADE[:30])
    row = {"id": "e", "plan": "", "state": "running", "reason": "", "created_by": "", "upto": 0}
    times = {"started_ns": NOW + 20 * DAY, "stopped_ns": 0, "joined_ns": 0}
    with engine.begin() as connection:
        connection.execute(t.experiment.insert().values(**row, **times))
    assert prune(engine, 40) == 19


@pytest.mark.parametrize("seed", range(2))
def test_whatever_the_order_of_arrival_the_counts_are_those_of_counting(engine: Engine, seed: int) -> None:
    """Live records before a backlog, a gap that is filled late, a clock that jumps: what is stated as gone is gone."""
    at = random.Random(seed)
    events = [e._replace(wall_ns=at.choice((1, e.wall_ns, e.wall_ns + 60 * DAY))) for e in MADE]
    events = chained(events)
    at.shuffle(events)
    heads = {"decision": Head(40, record_hash(record_line(next(e for e in events if e.seq == 40))))}
    for day, e in enumerate(events[:36]):
        commit(engine, [batch([e], heads=heads)], NOW + day * DAY)
        if day % 8 == 7:
            prune(engine, day, 6)
            found = proof(engine).summary()
            assert found["delivered"] == day + 1
            assert found["pruned"] == day + 1 - len(stored(engine)) == found["delivered"] - found["records_checked"]
    assert of_store(engine)["gudgeon_store_pruned_events_total"] == {("decision",): 36 - len(stored(engine))}
    assert findings(engine) == []


def test_on_postgresql_an_old_empty_month_is_dropped_and_made_again(engine: Engine) -> None:
    def months() -> set[str]:
        return {name for name in inspect(engine).get_table_names() if name.startswith("event_2")}

    day_by_day(engine, MADE)
    before = months()
    prune(engine, 200)
    if engine.dialect.name == "sqlite":
        assert months() == set()
        return
    assert len(before) == 2
    assert months() == {max(before)}
    late = event(1, "metric")._replace(wall_ns=MADE[0].wall_ns)
    commit(engine, [batch([late])], NOW + 200 * DAY)
    assert stored(engine, "metric") == [1]


def test_what_is_kept_for_ever_is_never_looked_at() -> None:
    assert pruning.walks(0, {}) == []
    (walk,) = pruning.walks(0, {"metric": 3})
    assert (walk.streams, walk.keep_ns) == (frozenset({"metric"}), 3 * DAY)
    with pytest.raises(ValueError, match=r"keep_days_of\.metrics is no stream; expected one of"):
        StoreSection(keep_days_of={"metrics": 3})
    with pytest.raises(ValueError, match="keep_days is -1, expected 0"):
        StoreSection(keep_days=-1)
