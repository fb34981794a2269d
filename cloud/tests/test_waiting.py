"""What is committed together: live batches before a backlog, short commits while they come, PUBACKs in order."""

from __future__ import annotations

import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cloud.messages import Batch, Connected, Status
from cloud.tests.made import PLACE, batch, event
from cloud.waiting import COMMIT_MESSAGES, LIVE_RECORDS, LIVE_S, LONG_RECORDS, SHORT_RECORDS, Message, Waiting

BULK = batch(event(n, "telemetry") for n in range(1, 201))


def bulk_of(device: str) -> Batch:
    return replace(BULK, place=replace(PLACE, device=device))


LIVE = batch([event(1, "alarm")])
STATUS = Status(PLACE, True, "b")


def waiting(*items: object) -> Waiting:
    found = Waiting()
    for mid, item in enumerate(items, 1):
        found.add(Message(item, None, mid, 1))  # type: ignore[arg-type]
    return found


def mids(messages: list[Message]) -> list[int]:
    return [m.mid for m in messages]


def test_a_live_batch_goes_first_and_keeps_the_commit_short() -> None:
    found = waiting(BULK, BULK, STATUS, LIVE, BULK)
    assert mids(found.take(10.0)) == [4]
    assert mids(found.take(10.0)) == [1]
    assert mids(found.take(10.0 + LIVE_S)) == [2, 3, 5]
    assert len(found) == 0


def test_without_live_ones_commits_are_long_but_bounded() -> None:
    most = LONG_RECORDS // 200
    assert len(waiting(*[BULK] * (most + 5)).take(0.0)) == most
    assert len(waiting(*[STATUS] * (COMMIT_MESSAGES + 1)).take(0.0)) == COMMIT_MESSAGES


def test_a_batch_larger_than_a_short_commit_goes_all_the_same() -> None:
    found = waiting(batch(event(n, "telemetry") for n in range(1, SHORT_RECORDS + 50)), LIVE)
    assert mids(found.take(0.0)) == [2]
    assert mids(found.take(0.0)) == [1]


def test_nothing_overtakes_the_word_of_a_new_connection() -> None:
    found = waiting(BULK, Connected(), LIVE)
    assert mids(found.take(0.0)) == [1, 2]
    assert mids(found.take(0.0)) == [3]


@given(st.lists(st.sampled_from([BULK, LIVE, STATUS, Connected()]), max_size=40))
def test_each_message_is_taken_once_and_confirmed_once_in_order(items: list[object]) -> None:
    found, taken, told = waiting(*items), [], []
    while found:
        group = found.take(0.0)
        assert group
        taken += mids(group)
        for message in group:
            message.done = True
        told += [m.mid for m in found.confirmed()]
    assert sorted(taken) == told == list(range(1, len(items) + 1))


@given(st.lists(st.sampled_from([bulk_of(f"dev{n}") for n in range(6)]), min_size=1, max_size=80))
def test_a_backlog_goes_around_device_by_device(items: list[Batch]) -> None:
    found, last = waiting(*items), dict[str, int]()
    while found:
        taken = [(m.item.place.device, m.mid) for m in found.take(0.0) if isinstance(m.item, Batch)]
        turns = [device for device, _ in itertools.groupby(device for device, _ in taken)]
        assert len(turns) == len(set(turns))
        for device, mid in taken:
            assert mid > last.get(device, 0)  # in the order that it was sent
            last[device] = mid


def test_a_device_that_sends_on_and_on_holds_up_no_other() -> None:
    found, begun = waiting(bulk_of("quiet")), 0
    while any(m.item.place.device == "quiet" for m in found._messages):  # type: ignore[union-attr]
        for _ in range(30):
            found.add(Message(bulk_of("loud")))
        found.take(0.0)
        begun += 1
    assert begun <= 2


def test_what_is_live() -> None:
    assert Message(batch(event(n, "telemetry") for n in range(1, LIVE_RECORDS + 1))).is_live
    assert not Message(batch(event(n, "telemetry") for n in range(1, LIVE_RECORDS + 2))).is_live
    assert not Message(STATUS).is_live
