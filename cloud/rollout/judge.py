"""From counts to what happens next. Pure: the same counts at the same time give the same answer.

- Failures are looked at first, in each group and in all together, also while the rollout is paused: it stops before it goes on.
- Groups open one after the other. A group is reached when enough of those that count have confirmed; who is absent or was skipped
  does not count. It is done when that has held for its soak time; one that goes back in between begins the soak anew.
- A group that can no longer be reached, whatever the rest of it does, stops the rollout, too: also one too small for the
  share of failures to be looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cloud.rollout.plan import Group, Plan
from cloud.rollout.states import (
    EXECUTED,
    FAILURES,
    GROUP,
    IN_FLIGHT,
    OPEN_ENDED,
    DeviceState,
    GroupInput,
    GroupState,
    RolloutInput,
    RolloutState,
)
from edge_runtime.machine import step

Counts = Mapping[DeviceState, int]
S_NS = 1_000_000_000


@dataclass(frozen=True)
class GroupNow:
    """`since_ns`: when it came into its state. `absent`: waiting members that were not heard of for long."""

    state: GroupState
    since_ns: int
    counts: Counts
    absent: int = 0

    def sum(self, *states: DeviceState) -> int:
        return sum(self.counts.get(state, 0) for state in states)

    @property
    def members(self) -> int:
        return sum(self.counts.values()) - self.sum(DeviceState.SKIPPED, DeviceState.CANCELLED)

    @property
    def executed(self) -> int:
        return self.sum(*EXECUTED)

    @property
    def failures(self) -> int:
        return self.sum(*FAILURES)

    @property
    def unfinished(self) -> int:
        """Members that are here and have not come to an end."""
        return self.sum(*OPEN_ENDED) - self.absent


@dataclass(frozen=True)
class Verdict:
    """`groups`: the new state of each group. `input`: of the rollout, None where it stays."""

    groups: tuple[GroupNow, ...]
    input: RolloutInput | None = None
    reason: str = ""


def judge(plan: Plan, state: RolloutState, groups: Sequence[GroupNow], since_ns: int, now_ns: int) -> Verdict:
    """`since_ns`: when the rollout came into its state."""
    now = tuple(groups)
    if state is RolloutState.ABORTING:
        return Verdict(now, RolloutInput.DRAINED if _drained(plan, now, since_ns, now_ns) else None)
    if why := too_many(plan, now):
        return Verdict(now, RolloutInput.ABORT, why)
    if state is RolloutState.RUNNING:
        return _go_on(plan, now, now_ns)
    return Verdict(now)


def too_many(plan: Plan, groups: Sequence[GroupNow]) -> str:
    """Why the failures are too many, or ""."""
    rows = [(group.name, now.failures, now.executed) for group, now in zip(plan.groups, groups, strict=True)]
    rows.append(("all groups", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    for name, failures, executed in rows:
        if plan.abort.count and failures >= plan.abort.count:
            return f"{name}: {failures} devices failed, the limit is {plan.abort.count}"
        if executed >= plan.abort.executed and failures > plan.abort.failed * executed:
            share = f"{100 * failures / executed:.1f} %"
            return (
                f"{name}: {failures} of {executed} devices failed ({share}), the limit is {100 * plan.abort.failed:g} %"
            )
    return ""


def needed(group: Group, now: GroupNow) -> int:
    """How many must confirm."""
    share = math.ceil(group.success * (now.members - now.absent) - 1e-9)
    return max(share, min(group.least, now.members))


def _go_on(plan: Plan, groups: tuple[GroupNow, ...], now_ns: int) -> Verdict:
    found = list(groups)
    for number, group in enumerate(plan.groups):
        found[number] = _group_after(group, found[number], now_ns)
        if found[number].state is GroupState.FAILED:
            now = found[number]
            text = f"{group.name}: {now.sum(DeviceState.CONFIRMED)} of {now.members} devices confirmed and {now.failures} failed"
            return Verdict(tuple(found), RolloutInput.ABORT, f"{text}, {needed(group, now)} had to confirm")
        if found[number].state is not GroupState.DONE:
            return Verdict(tuple(found))
    unfinished = any(now.unfinished for now in found)
    return Verdict(tuple(found), None if unfinished else RolloutInput.COMPLETE)


def _group_after(group: Group, now: GroupNow, now_ns: int) -> GroupNow:
    """As far as it gets at this time."""
    while (event := _input(group, now, now_ns)) is not None:
        now = replace(now, state=step(GROUP, now.state, event), since_ns=now_ns)
    return now


def _input(group: Group, now: GroupNow, now_ns: int) -> GroupInput | None:
    if now.state is GroupState.WAITING:
        return GroupInput.BEGIN
    if now.state not in (GroupState.OPEN, GroupState.SOAKING):
        return None
    confirmed, wanted = now.sum(DeviceState.CONFIRMED), needed(group, now)
    if confirmed + now.sum(*OPEN_ENDED) < wanted:
        return GroupInput.HOPELESS
    if now.state is GroupState.OPEN:
        return GroupInput.REACHED if confirmed >= wanted else None
    if confirmed < wanted:
        return GroupInput.FELL
    return GroupInput.SOAKED if now_ns - now.since_ns >= group.soak_s * S_NS else None


def _drained(plan: Plan, groups: Sequence[GroupNow], since_ns: int, now_ns: int) -> bool:
    if any(now.sum(*IN_FLIGHT) for now in groups):
        return False
    holding = plan.on_abort == "revert" and any(now.sum(DeviceState.CONFIRMED) for now in groups)
    return not holding or now_ns - since_ns >= plan.silent_after_s * S_NS
