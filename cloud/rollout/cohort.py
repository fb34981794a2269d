"""Which group of a rollout a device is in. Pure and the same everywhere.

The position of a device is the first 53 bits, big-endian, of the SHA-256 of salt, newline, device: as a number from 0 (included)
to 1 (not included). The salt is the rollout's id, so that not always the same devices go first.

- `percent` groups are ranges of positions one after the other, so whether a device is in one depends on nothing but its own
  name: a fleet may grow or shrink, nobody else moves. In a group that would be empty is the next device by position.
- A group all of whose devices are absent has the next one by position that is not, too: else nobody would be the canary.
- `count` groups are the first so many by position, of the fleet at the start.
- Who comes after the start joins its group by position as long as that is not open; else the first one that is not open and
  takes it, else the last one that takes it. So a group that is open never grows, but the last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cloud.rollout.plan import Group
from cloud.rollout.tags import matches

_SPAN = 2**53


class Member(NamedTuple):
    """`tags`: with `device` and `hardware`. `told_ns`: when it was last heard of."""

    device: str
    tags: Mapping[str, str]
    told_ns: int = 0


def position(salt: str, device: str) -> float:
    digest = hashlib.sha256(f"{salt}\n{device}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / _SPAN


def placed(groups: Sequence[Group], salt: str, members: Iterable[Member], absent_ns: int = 0) -> dict[str, int]:
    """device → number of its group, for the devices that are in one. Who was not heard of since `absent_ns` is absent."""
    left = sorted((position(salt, m.device), m) for m in members)
    found: dict[str, int] = {}
    for number, group in enumerate(groups):
        fit = [(at, m) for at, m in left if matches(group.where, m.tags)]
        chosen = _taken(group, range_of(groups, number), fit)
        if all(m.told_ns < absent_ns for m in chosen):
            chosen += [m for _, m in fit if m.told_ns >= absent_ns][:1]
        taken = {m.device for m in chosen}
        found |= dict.fromkeys(taken, number)
        left = [(at, m) for at, m in left if m.device not in taken]
    return found


def _taken(group: Group, within: tuple[float, float], fit: Sequence[tuple[float, Member]]) -> list[Member]:
    if group.count is not None:
        return [m for _, m in fit[: group.count]]
    if group.percent is None:
        return [m for _, m in fit]
    inside = [m for at, m in fit if within[0] <= at < within[1]]
    return inside or [m for _, m in fit[:1]]


def range_of(groups: Sequence[Group], number: int) -> tuple[float, float]:
    """Of a percent group: from where the percent groups before it with the same filter end."""
    group = groups[number]
    before = [g.percent or 0.0 for g in groups[:number] if g.where == group.where]
    start = sum(before) / 100.0
    end = start + (group.percent or 0.0) / 100.0
    return start, (1.0 if end > 1.0 - 1e-9 else end)


def joined(groups: Sequence[Group], waiting: Sequence[bool], salt: str, member: Member) -> int | None:
    """The group of a device that came after the start; `waiting`: which are not open yet."""
    at = position(salt, member.device)
    fit = [n for n, group in enumerate(groups) if matches(group.where, member.tags)]
    own = [n for n in fit if groups[n].percent is not None and range_of(groups, n)[0] <= at < range_of(groups, n)[1]]
    for number in (
        *own[:1],
        *(n for n in fit if groups[n].takes_the_rest),
        *(n for n in fit if groups[n].count is None),
    ):
        if waiting[number]:
            return number
    return fit[-1] if fit else None
