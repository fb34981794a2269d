"""The pure parts: the tables are walked, cohorts are stable, plans and filters are checked, judgements hold for all counts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.rollout.cohort import Member, joined, placed, position, range_of
from cloud.rollout.judge import GroupNow, judge
from cloud.rollout.plan import Group, plan_of, read_plan
from cloud.rollout.states import DEVICE, GROUP, ROLLOUT, DeviceState, GroupState, RolloutInput, RolloutState
from cloud.rollout.tags import check_filter, matches
from cloud.rollout.window import is_open
from edge_runtime.machine import step

names = st.lists(st.text("abcdefgh0123456789", min_size=1, max_size=8), unique=True, max_size=60)


def members(devices: list[str]) -> list[Member]:
    return [Member(d, {"device": d, "hardware": "x86_64", "half": "a" if d < "d" else "b"}) for d in devices]


@given(st.lists(st.sampled_from(list(RolloutInput)), max_size=12))
def test_a_rollout_that_was_aborted_never_runs_again(inputs: list[RolloutInput]) -> None:
    state, aborted = RolloutState.DRAFT, False
    for event in inputs:
        state = step(ROLLOUT, state, event)
        aborted = aborted or state in (RolloutState.ABORTING, RolloutState.ABORTED)
        assert not aborted or state in (RolloutState.ABORTING, RolloutState.ABORTED)


@pytest.mark.parametrize("event", [RolloutInput.PAUSE, RolloutInput.RESUME, RolloutInput.ABORT])
def test_every_action_may_be_repeated(event: RolloutInput) -> None:
    for (_, given_event), after in ROLLOUT.items():
        if given_event is event:
            assert step(ROLLOUT, after, event) in (after, step(ROLLOUT, step(ROLLOUT, after, event), event))


def test_every_state_is_reached() -> None:
    for table, first in ((ROLLOUT, RolloutState.DRAFT), (GROUP, GroupState.WAITING), (DEVICE, DeviceState.WAITING)):
        assert {first, *table.values()} == set(type(first))


def test_a_position_is_what_is_written_down() -> None:
    """As `sha256sum` has it: printf "r1\\ndev1" | sha256sum."""
    assert position("r1", "dev1") == pytest.approx(0.1953328200349601, abs=1e-12)


@given(names, names, st.floats(1, 99))
@settings(max_examples=60)
def test_who_is_in_a_percent_group_stays_there_when_the_fleet_grows(
    old: list[str], new: list[str], percent: float
) -> None:
    groups = (Group("canary", percent=percent), Group("all"))
    before, after = placed(groups, "r", members(old)), placed(groups, "r", members(sorted({*old, *new})))
    start, end = range_of(groups, 0)
    for device in old:
        if start <= position("r", device) < end:
            assert before[device] == after[device] == 0
    if old:
        assert list(before.values()).count(0) >= 1, "a canary is never empty"


@given(names, st.integers(1, 30), st.integers(1, 30))
def test_a_larger_count_takes_the_same_and_more(devices: list[str], few: int, more: int) -> None:
    few, more = sorted((few, more))
    first = placed((Group("g", count=few),), "r", members(devices))
    second = placed((Group("g", count=more),), "r", members(devices))
    assert set(first) <= set(second)
    assert len(first) == min(few, len(devices))


@given(names)
def test_each_device_is_in_one_group_the_first_that_takes_it(devices: list[str]) -> None:
    groups = (Group("a", where=("half=a",)), Group("ten", percent=10), Group("rest"))
    found = placed(groups, "r", members(devices))
    assert set(found) == set(devices)
    assert all(found[d] == 0 for d in devices if d < "d")
    assert all(found[d] > 0 for d in devices if d >= "d")


def test_percent_groups_are_as_large_as_they_say() -> None:
    devices = [f"dev{n}" for n in range(20_000)]
    groups = (Group("a", percent=1), Group("b", percent=10), Group("c", percent=89))
    sizes = list(placed(groups, "salt", members(devices)).values())
    assert [sizes.count(n) / 200 for n in range(3)] == pytest.approx([1, 10, 89], abs=0.7)


def test_who_comes_late_joins_a_group_that_is_not_open() -> None:
    groups = (Group("canary", percent=50), Group("some", count=3), Group("all"))
    early = next(f"d{n}" for n in range(99) if position("r", f"d{n}") < 0.5)
    member = members([early])[0]
    assert joined(groups, [True, True, True], "r", member) == 0
    assert joined(groups, [False, True, True], "r", member) == 2
    assert joined(groups, [False, False, False], "r", member) == 2
    assert joined((Group("a", where=("gpu",)),), [True], "r", member) is None


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("line=7", True), ("line=8", False), ("line=8|7", True), ("line!=8", True), ("line!=7", False),
        ("site=lab", False), ("site!=lab", True), ("line", True), ("!line", False), ("!gpu", True), ("note=", True),
    ],
)  # fmt: skip
def test_filters(condition: str, holds: bool) -> None:
    assert matches([condition], {"line": "7", "note": ""}) is holds


@pytest.mark.parametrize("condition", ["", "=x", "Line=7", "line=a b", "line==7", "!line=7", "line = 7"])
def test_a_wrong_filter_is_refused(condition: str) -> None:
    with pytest.raises(ValueError, match="filter"):
        check_filter([condition])


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({"groups": []}, "expected 1 to 32"),
        ({"groups": [{"name": "a"}, {"name": "a"}]}, "the same name"),
        ({"groups": [{"name": "a", "percent": 5, "count": 3}]}, "both percent and count"),
        ({"groups": [{"name": "a", "percent": 0}]}, "above 0"),
        ({"groups": [{"percent": 5}]}, "name is missing"),
        ({"groups": [{"name": "a", "success": 1.5}]}, "a share from 0 to 1"),
        ({"groups": [{"name": "a", "soak": 5}]}, "unknown key soak"),
        ({"groups": "all"}, "must be a list"),
        ({"abort": {"failed": -0.1}}, "a share from 0 to 1"),
        ({"abort": {"executed": 0}}, "1 or more"),
        ({"window": "2-4"}, "HH:MM-HH:MM"),
        ({"zone": "Europe/Atlantis"}, "is not known"),
        ({"on_abort": "panic"}, "leave, revert"),
        ({"tries": True}, "must be int"),
        ({"silent_after_s": 0}, "above 0"),
        ({"silent_after_s": float("nan")}, "must be float"),
        ({"where": "line=7"}, "a list"),
        ([], "expected an object"),
    ],
)
def test_a_wrong_plan_is_refused(plan: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_plan(plan)


def test_a_plan_is_kept_as_it_is() -> None:
    plan = read_plan(
        {"groups": [{"name": "a", "percent": 5, "where": ["line=7"]}, {"name": "b"}], "window": "22:00-04:00"}
    )
    assert plan_of(plan.to_json()) == plan
    assert read_plan(json.loads(plan.to_json())) == plan


@pytest.mark.parametrize(
    ("hour", "window", "is_it"),
    [(1, "02:00-04:00", False), (2, "02:00-04:00", True), (4, "02:00-04:00", False), (23, "22:00-04:00", True),
     (3, "22:00-04:00", True), (12, "22:00-04:00", False), (12, "00:00-00:00", True), (12, "", True)],
)  # fmt: skip
def test_windows_are_in_local_time(hour: int, window: str, is_it: bool) -> None:
    summer = int(datetime(2026, 7, 1, (hour - 2) % 24, 30, tzinfo=UTC).timestamp()) * 10**9
    winter = int(datetime(2026, 1, 10, (hour - 1) % 24, 30, tzinfo=UTC).timestamp()) * 10**9
    assert is_open(window, "Europe/Berlin", summer) is is_it
    assert is_open(window, "Europe/Berlin", winter) is is_it


counts = st.dictionaries(st.sampled_from(list(DeviceState)), st.integers(0, 40))


@given(
    st.lists(counts, min_size=2, max_size=2),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(1, 30),
    st.integers(0, 10**6),
)
@settings(max_examples=200)
def test_a_judgement_is_final_until_something_changes(
    found: list[Any], success: float, failed: float, executed: int, soak_s: int
) -> None:
    plan = read_plan(
        {
            "groups": [{"name": "a", "percent": 5, "success": success, "soak_s": soak_s % 100}, {"name": "b"}],
            "abort": {"failed": failed, "executed": executed},
        }
    )
    groups = [GroupNow(GroupState.WAITING, 0, c) for c in found]
    first = judge(plan, RolloutState.RUNNING, groups, 0, 10**9)
    second = judge(plan, RolloutState.RUNNING, first.groups, 0, 10**9)
    assert (second.groups, second.input) == (first.groups, first.input)
    states = [now.state for now in first.groups]
    assert states[1] is GroupState.WAITING or states[0] is GroupState.DONE, "one after the other"
    if first.input is RolloutInput.COMPLETE:
        assert all(now.unfinished <= 0 for now in first.groups)
    assert judge(plan, RolloutState.PAUSED, groups, 0, 10**9).groups == tuple(groups), "a pause opens nothing"


def test_a_canary_of_absent_devices_alone_has_one_more_that_is_there() -> None:
    """A device that was tagged and never came must not hold up all others."""
    groups = (Group("canary", percent=5), Group("all"))
    names = sorted((f"d{n}" for n in range(6)), key=lambda name: position("r", name))
    off = [m._replace(told_ns=1) for m in members(names[:2])]
    there = [m._replace(told_ns=100) for m in members(names[2:])]
    for first in (groups, (Group("canary", count=2), Group("all"))):
        found = placed(first, "r", [*off, *there], absent_ns=50)
        assert found[names[0]] == found[names[2]] == 0
        assert found[names[3]] == found[names[5]] == 1
    assert set(placed(groups, "r", off, absent_ns=50).values()) == {0, 1}
