"""The plan: one step for each situation, as a table; and windows, with clocks that are right and wrong."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from edge_runtime.update import states, window
from edge_runtime.update.plan import Action, Facts, plan
from edge_runtime.update.records import Job, Release, SlotRecord
from edge_runtime.wire.assignment import Assignment, Item
from edge_runtime.wire.update_status import UpdateState as State

OLD, NEW = Release("a" * 64, "", "models/x/1.tar", 1), Release("b" * 64, "", "models/x/2.tar", 2)
ITEM = Item(NEW.target, NEW.sha256, "r1")
JOB = Job(NEW, "r1", 5, 2)
RUNS = SlotRecord(State.CONFIRMED, confirmed=OLD)
LOADING = states.take(RUNS, JOB)
STAGED = states.staged(LOADING)
CHECKED = replace(STAGED, job=replace(JOB, checked=True))
TRIAL = states.try_once(CHECKED)
LAST = states.try_once(TRIAL)
DONE = states.confirm(TRIAL)
ASKED = Facts(known=True, counter=5, item=ITEM, stored=True, fresh=True)
STAGE, BACK = replace(ITEM, go="stage"), replace(ITEM, go="revert")
OTHER = Item("models/x/3.tar", "c" * 64, "r1")
OLD_ITEM = Item(OLD.target, OLD.sha256, "r1")

ROWS: list[tuple[str, SlotRecord, Facts, Action]] = [
    ("nothing is known", RUNS, Facts(), Action.REST),
    ("nothing is asked", RUNS, replace(ASKED, item=None), Action.REST),
    ("something new", RUNS, ASKED, Action.TAKE),
    ("something new, refused by trust", RUNS, replace(ASKED, refusal="no"), Action.REFUSE),
    ("fetch", LOADING, ASKED, Action.FETCH),
    ("another one while it is fetched", LOADING, replace(ASKED, item=OTHER), Action.TAKE),
    ("taken back while it is fetched", LOADING, replace(ASKED, item=None), Action.DROP),
    ("go back while it is fetched", LOADING, replace(ASKED, item=BACK), Action.DROP),
    ("a newer assignment of the same", LOADING, replace(ASKED, counter=6), Action.RENEW),
    ("another rollout of the same", LOADING, replace(ASKED, item=replace(ITEM, rollout="r2")), Action.RENEW),
    ("offline while it is fetched", LOADING, Facts(), Action.REST),
    ("check", STAGED, ASKED, Action.CHECK),
    ("check, although it is paused", STAGED, replace(ASKED, item=STAGE), Action.CHECK),
    ("damaged after staging", STAGED, replace(ASKED, stored=False), Action.TAKE),
    ("start", CHECKED, ASKED, Action.BEGIN),
    ("not asked a moment ago", CHECKED, replace(ASKED, fresh=False), Action.ASK),
    ("paused", CHECKED, replace(ASKED, item=STAGE), Action.REST),
    ("aborted", CHECKED, replace(ASKED, item=None), Action.DROP),
    ("window closed", CHECKED, replace(ASKED, window="later"), Action.REST),
    ("window closed, and not fresh", CHECKED, replace(ASKED, window="later", fresh=False), Action.REST),
    ("on trial", TRIAL, replace(ASKED, begun=True), Action.WATCH),
    ("on trial, offline", TRIAL, Facts(begun=True), Action.WATCH),
    ("on trial, paused", TRIAL, replace(ASKED, begun=True, item=STAGE), Action.WATCH),
    ("on trial, asked for no more", TRIAL, replace(ASKED, begun=True, item=None), Action.WATCH),
    ("on trial, taken back", TRIAL, replace(ASKED, begun=True, item=BACK), Action.ROLL_BACK),
    ("on trial, another one", TRIAL, replace(ASKED, begun=True, item=OTHER), Action.ROLL_BACK),
    ("on trial, a newer assignment", TRIAL, replace(ASKED, begun=True, counter=6), Action.RENEW),
    ("after a crash on trial", TRIAL, ASKED, Action.BEGIN),
    ("after a crash on trial, offline", TRIAL, Facts(stored=True), Action.BEGIN),
    ("after a crash on trial, damaged", TRIAL, Facts(stored=False), Action.ROLL_BACK),
    ("after a crash on the last try", LAST, ASKED, Action.ROLL_BACK),
    ("a local installation was cut", replace(TRIAL, job=replace(JOB, release=Release("b" * 64))), ASKED, Action.ROLL_BACK),
    ("confirmed", DONE, ASKED, Action.REST),
    ("confirmed, newer assignment", DONE, replace(ASKED, counter=6), Action.ADOPT),
    ("confirmed, and damaged", DONE, replace(ASKED, damaged=True), Action.TAKE),
    ("confirmed before there was a cloud", SlotRecord(State.CONFIRMED, confirmed=NEW), ASKED, Action.ADOPT),
    ("the confirmed one again, while another is fetched", LOADING, replace(ASKED, item=OLD_ITEM), Action.ADOPT),
    ("confirmed, go back", DONE, replace(ASKED, item=BACK), Action.GO_BACK),
    ("confirmed, go back below the floor", DONE, replace(ASKED, item=BACK, floor=2), Action.REST),
    ("confirmed, go back to nothing", replace(DONE, previous=None), replace(ASKED, item=BACK), Action.REST),
    ("another one is confirmed, go back", RUNS, replace(ASKED, item=BACK), Action.REST),
    ("rolled back, same assignment", states.roll_back(TRIAL, "no"), ASKED, Action.REST),
    ("rolled back, new assignment", states.roll_back(TRIAL, "no"), replace(ASKED, counter=6), Action.TAKE),
    ("refused, same assignment", states.refuse(LOADING, "no"), replace(ASKED, refusal="no"), Action.REST),
    ("refused, new assignment", states.refuse(STAGED, "no"), replace(ASKED, counter=6), Action.TAKE),
]  # fmt: skip


@pytest.mark.parametrize(("what", "record", "facts", "action"), ROWS, ids=[row[0] for row in ROWS])
def test_one_step(what: str, record: SlotRecord, facts: Facts, action: Action) -> None:
    assert plan(record, facts).action is action


def test_every_action_is_in_the_table() -> None:
    assert {row[3] for row in ROWS} == set(Action)


HOUR_NS = 3600 * 10**9


def at(hour: int, minute: int = 0) -> int:
    return int(time.mktime((2026, 5, 20, hour, minute, 0, 0, 0, -1))) * 10**9


@pytest.mark.parametrize(
    ("text", "now", "is_open"),
    [
        ("", (13, 0), True),
        ("02:00-04:00", (2, 0), True),
        ("02:00-04:00", (3, 59), True),
        ("02:00-04:00", (4, 0), False),
        ("02:00-04:00", (1, 59), False),
        ("22:00-04:00", (23, 30), True),
        ("22:00-04:00", (3, 30), True),
        ("22:00-04:00", (12, 0), False),
        ("08:00-08:00", (17, 0), True),
    ],
)
def test_a_window_is_local_time(text: str, now: tuple[int, int], is_open: bool) -> None:
    wall_ns = at(*now)
    assignment = Assignment("d", 1, wall_ns - HOUR_NS, wall_ns + HOUR_NS)
    reason = window.closed(text, assignment, wall_ns)
    assert (reason == "") is is_open
    assert is_open or text in reason


@pytest.mark.parametrize("off_ns", [-48 * HOUR_NS, 24 * 365 * HOUR_NS])
def test_a_window_is_closed_where_the_clock_cannot_be_right(off_ns: int) -> None:
    wall_ns = at(3)
    assignment = Assignment("d", 1, wall_ns - HOUR_NS, wall_ns + HOUR_NS)
    assert "a clock that is right" in window.closed("00:00-23:59", assignment, wall_ns + off_ns)
    assert window.closed("", assignment, wall_ns + off_ns) == ""
