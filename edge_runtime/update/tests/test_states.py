"""The table of states, walked at random: what is confirmed has passed its trial, tries only fall, what is refused stays so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.machine import step
from edge_runtime.update import states
from edge_runtime.update.records import REFUSED_LIMIT, Job, Release, SlotRecord
from edge_runtime.update.states import TABLE, Input
from edge_runtime.wire.update_status import UpdateState as State

A, B, C = (Release(letter * 64, letter * 64, f"models/x/{letter}.tar", n) for n, letter in enumerate("abc", 1))
RUNNING = SlotRecord(State.CONFIRMED, confirmed=A)


def job(release: Release = B, counter: int = 1, tries: int = 3) -> Job:
    return Job(release, "r1", counter, tries)


STEPS: dict[Input, Callable[[SlotRecord, Job], SlotRecord]] = {
    Input.TAKE: states.take,
    Input.STAGED: lambda r, _: states.staged(r),
    Input.REFUSE: lambda r, _: states.refuse(r, "no"),
    Input.DROP: lambda r, _: states.drop(r),
    Input.TRY: lambda r, _: states.try_once(r),
    Input.PASS: lambda r, _: states.confirm(r),
    Input.FAIL: lambda r, _: states.roll_back(r, "no") if r.state is State.TRIAL else states.go_back(r, "no", 99),
}
walks = st.lists(
    st.tuples(st.sampled_from(Input), st.sampled_from([A, B, C]), st.integers(1, 6), st.integers(1, 3)), max_size=60
)


@given(walks)
def test_a_walk(walk: list[tuple[Input, Release, int, int]]) -> None:
    record = SlotRecord()
    for event, release, counter, tries in walk:
        before = record
        try:
            record = STEPS[event](record, job(release, counter, tries))
        except ValueError:
            assert record is before
            continue
        assert record.state is step(TABLE, before.state, event) or event is Input.FAIL
        if record.state is State.TRIAL:
            assert before.job
            assert record.job
            assert event is Input.TRY
            assert 0 <= record.job.tries_left == before.job.tries_left - 1
        if record.confirmed != before.confirmed:
            if event is Input.PASS:
                assert before.state is State.TRIAL
                assert before.job
                assert record.confirmed == before.job.release
            else:
                assert (event, record.confirmed) == (Input.FAIL, before.previous)
        for sha256, until in before.refused.items():
            assert record.refused[sha256] >= until
        if event is Input.TAKE:
            assert counter > before.refused.get(release.sha256, -1)


def test_every_state_is_reached_and_left_and_the_table_is_the_documented_one() -> None:
    reached = {State.IDLE}
    for _ in State:
        reached |= {to for (at, _), to in TABLE.items() if at in reached}
    assert reached == set(State)
    assert {at for (at, _), to in TABLE.items() if at is not to} == set(State)
    assert states.__doc__
    rows = [line.split()[:3] for line in states.__doc__.splitlines() if line.startswith("    ")][1:]
    assert rows == [[at.value, event.value, to.value] for (at, event), to in TABLE.items()]


def test_a_try_is_spent_before_each_start_and_none_is_left_at_the_end() -> None:
    record = states.staged(states.take(RUNNING, job(tries=2)))
    for left in (1, 0):
        assert states.allowed(record, Input.TRY)
        record = states.try_once(record, 5)
        assert record.job
        assert (record.state, record.job.tries_left, record.job.since_ns) == (State.TRIAL, left, 5)
    assert not states.allowed(record, Input.TRY)
    with pytest.raises(ValueError, match="no try is left"):
        states.try_once(record)


def test_confirmed_keeps_the_one_before_and_can_go_back_to_it_once() -> None:
    record = states.try_once(states.staged(states.take(RUNNING, job(counter=4))))
    record = states.confirm(record, {"p99_ms": 3.5}, 7)
    assert (record.state, record.confirmed, record.previous) == (State.CONFIRMED, B, A)
    assert record.job
    assert record.job.measured == {"p99_ms": 3.5}
    back = states.go_back(record, "asked to", 5)
    assert (back.state, back.confirmed, back.previous) == (State.ROLLED_BACK, A, None)
    assert states.refused(back, B.sha256, 5)
    assert not states.refused(back, B.sha256, 6)
    with pytest.raises(ValueError, match="nothing was confirmed before"):
        states.go_back(back, "again", 6)


def test_a_refused_hash_waits_for_a_new_assignment() -> None:
    record = states.refuse(states.take(RUNNING, job(counter=4)), "no such file", now_ns=3)
    assert (record.state, record.confirmed, dict(record.refused)) == (State.REFUSED, A, {B.sha256: 4})
    with pytest.raises(ValueError, match="refused until"):
        states.take(record, job(counter=4))
    assert states.take(record, job(counter=5)).state is State.DOWNLOADING


def test_the_list_of_refused_hashes_is_bounded() -> None:
    record = RUNNING
    for n in range(2 * REFUSED_LIMIT):
        record = states.refuse(states.take(record, job(Release(f"{n:064x}"), n + 1)), "no")
    assert len(record.refused) == REFUSED_LIMIT
    assert f"{2 * REFUSED_LIMIT - 1:064x}" in record.refused


def test_what_a_record_needs_in_the_store() -> None:
    record = states.take(RUNNING, job())
    assert record.named == {A.sha256, B.sha256}
    assert states.refuse(record, "no").named == {A.sha256}
    confirmed = states.confirm(states.try_once(states.staged(record)))
    assert confirmed.named == {A.sha256, B.sha256}
