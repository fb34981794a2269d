"""Alarms: the table walked by a property test, delays, hysteresis, rate limit; the file killed at every durable operation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.decide import alarm_file, alarms
from edge_runtime.decide.alarm_book import ACTIONS, KINDS, AlarmBook, Place
from edge_runtime.decide.alarm_file import AlarmFile
from edge_runtime.decide.alarm_states import ALLOWED, TABLE, AlarmInput, AlarmState
from edge_runtime.decide.alarms import Alarm, AlarmSettings
from edge_runtime.durable import replace_file
from edge_runtime.errors import ResourceError
from edge_runtime.machine import step
from edge_runtime.outbox.store import Outbox

S = 1_000_000_000
QUICK = AlarmSettings(on_delay_s=0, off_delay_s=0, max_per_hour=1000)


def places(config: AlarmSettings = QUICK) -> list[Place]:
    return [Place("pump", "anomaly", config), Place("pump", "hot", config)]


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_table_reaches_every_state_and_leaves_every_state() -> None:
    assert {before for before, _ in TABLE} == set(AlarmState) == set(TABLE.values())
    assert {event for _, event in TABLE} == set(AlarmInput) == set(KINDS)
    assert all(TABLE[state, event] is not state for state, event in TABLE)


@given(st.lists(st.sampled_from(list(AlarmInput)), max_size=40))
def test_an_input_without_a_row_changes_nothing(inputs: list[AlarmInput]) -> None:
    state = AlarmState.NORMAL
    for event in inputs:
        after = step(TABLE, state, event)
        assert after is TABLE.get((state, event), state)
        state = after


moves = st.one_of(
    st.tuples(st.just("level"), st.sampled_from([None, 0, 1, 2, 3, 4])),
    st.tuples(st.sampled_from(["ack", "shelve", "unshelve"]), st.just(0)),
    st.tuples(st.just("suppress"), st.booleans()),
    st.tuples(st.just("wait"), st.integers(1, 4000)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(moves, max_size=60), st.integers(0, 20), st.integers(0, 20))
def test_state_condition_and_what_is_told_agree(script: list[tuple[str, Any]], on_s: int, off_s: int) -> None:
    config = AlarmSettings(on_delay_s=on_s, off_delay_s=off_s, max_per_hour=3)
    book = AlarmBook(places(config))
    now, state = 0, "normal"
    for what, value in script:
        now += S
        if what == "level":
            book.observe("pump/anomaly", value, {}, now, now)
        elif what == "suppress":
            book.suppress("pump/anomaly", value, "")
        elif what == "wait":
            now += value * S
            book.expire(now)
        else:
            refused = book.ask(what, "pump/anomaly", "ann", 60.0, now)
            assert bool(refused) == (AlarmState(state) not in ALLOWED[ACTIONS[what]])
        alarm = book.saved().alarms[0]
        if alarm.state in (AlarmState.UNACKNOWLEDGED, AlarmState.ACKNOWLEDGED):
            assert alarm.active
        if alarm.state in (AlarmState.NORMAL, AlarmState.RETURNED):
            assert not alarm.active
        if alarm.active:
            assert 1 <= alarm.severity <= 4
        for told in book.untold:  # every change of state is told, in order
            assert told.body["state"] != state or told.kind == "escalated"
            state = told.body["state"]
        assert state == alarm.state.value
        book.told(len(book.untold))


# ── delays, unknown, severity, rate ─────────────────────────────────────────────────────────────────────────────────────


def fed(config: AlarmSettings, levels: Sequence[int | None], every_s: float = 1.0) -> tuple[Alarm, list[str]]:
    alarm, told = Alarm("a/b"), []
    for i, level in enumerate(levels):
        stepped = alarms.observe(alarm, config, level, round(i * every_s * S), i)
        alarm = stepped.alarm
        if stepped.event:
            told.append(f"{i} {stepped.event.value}")
    return alarm, told


def test_it_takes_the_delay_to_raise_and_to_clear() -> None:
    config = AlarmSettings(on_delay_s=3, off_delay_s=2)
    assert fed(config, [1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0])[1] == ["7 raise", "13 clear"]


def test_what_is_unknown_neither_raises_nor_clears() -> None:
    config = AlarmSettings(on_delay_s=3, off_delay_s=2)
    assert fed(config, [1, 1, 1, None, 1, 1, 1, None, 1])[1] == []
    alarm, told = fed(config, [1, 1, 1, 1, 0, None, 0, None, None, None])
    assert told == ["3 raise"]
    assert alarm.active


def test_it_is_told_at_the_lowest_level_of_the_delay_and_escalates_after_one_more() -> None:
    alarm, told = fed(AlarmSettings(on_delay_s=2, off_delay_s=5), [1, 4, 4, 4, 4, 1, 1])
    assert told == ["2 raise", "4 escalate"]
    assert alarm.severity == 4  # it does not fall while the condition lasts


def test_an_alarm_that_comes_again_and_again_stays_told() -> None:
    config = AlarmSettings(on_delay_s=0, off_delay_s=0, max_per_hour=3)
    alarm, told = fed(config, [1, 0] * 50)
    assert [t.split()[1] for t in told] == ["raise", "clear", "raise", "clear", "raise"]
    assert alarm.state is AlarmState.UNACKNOWLEDGED
    later = alarms.observe(alarm, config, 0, 3601 * S, 0)
    assert later.event is AlarmInput.CLEAR


def test_an_escalation_wakes_an_acknowledged_alarm() -> None:
    book = AlarmBook(places())
    book.observe("pump/anomaly", 1, {}, S, 1)
    assert book.ask("ack", "pump/anomaly", "ann", 0, S) == ""
    book.observe("pump/anomaly", 3, {}, 2 * S, 1)
    assert [t.kind for t in book.untold] == ["raised", "acknowledged", "escalated"]
    assert book.untold[-1].body["state"] == "unacknowledged"
    assert (book.untold[-1].body["severity"], book.untold[-1].body["by"]) == ("high", "")


def test_what_happens_on_the_shelf_is_told_after_it() -> None:
    book = AlarmBook(places())
    assert "expected more than 0" in book.ask("shelve", "pump/hot", "ann", 25 * 3600, S)
    assert book.ask("shelve", "pump/hot", "ann", 60, S) == ""
    assert "is shelved" in book.ask("ack", "pump/hot", "ann", 0, S)
    book.observe("pump/hot", 2, {"value": 9}, 2 * S, 1)
    book.expire(60 * S)
    assert [t.kind for t in book.untold] == ["shelved"]
    book.expire(61 * S)
    assert (book.untold[-1].kind, book.untold[-1].body["state"]) == ("resumed", "unacknowledged")


def test_requests_that_make_no_sense_say_why() -> None:
    book = AlarmBook(places())
    assert "there is no alarm" in book.ask("ack", "pump/cold", "ann", 0, 0)
    assert "unknown action" in book.ask("eat", "pump/hot", "ann", 0, 0)
    assert "nothing to ack" in book.ask("ack", "pump/hot", "ann", 0, 0)


# ── the file ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    pass


class Crash:
    """Counts durable operations and dies before or after the n-th."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0

    def point(self) -> None:
        self.count += 1
        if self.count == self.at:
            raise Killed


class CrashingStore:
    def __init__(self, outbox: Outbox, crash: Crash) -> None:
        self.outbox, self.crash = outbox, crash

    def append_many(self, items: Sequence[tuple[str, str, Mapping[str, Any]]], durable: bool | None = None) -> Any:
        self.crash.point()
        done = self.outbox.append_many(items, durable)
        self.crash.point()
        return done

    def last(self, stream: str) -> Any:
        return self.outbox.last(stream)


#: what is measured and asked, step by step; `Place.id` or action
SCRIPT: tuple[tuple[str, str, int], ...] = (
    ("level", "pump/anomaly", 1), ("level", "pump/hot", 3), ("ack", "pump/hot", 0), ("level", "pump/anomaly", 4),
    ("level", "pump/hot", 0), ("shelve", "pump/anomaly", 0), ("unshelve", "pump/anomaly", 0), ("level", "pump/hot", 2),
)  # fmt: skip


def play(folder: Path, crash: Crash, start: int) -> int:
    """Run the script from step `start` on; the step to go on from."""

    def write(path: Path, data: bytes) -> None:
        crash.point()
        replace_file(path, data)
        crash.point()

    outbox = Outbox(folder / "outbox.db", "dev", "boot")
    file = AlarmFile(folder / alarm_file.NAME, "boot", CrashingStore(outbox, crash), write)
    done = start
    try:
        saved, told, problem = file.load(start * S)
        assert problem == ""
        book = AlarmBook(places(), saved, told)
        file.store(book, 0, 0)
        for i, (what, alarm_id, level) in enumerate(SCRIPT[start:], start):
            now = (i + 1) * S
            if what == "level":
                book.observe(alarm_id, level, {"n": i}, now, now)
            else:
                book.ask(what, alarm_id, "ann", 60, now)
            file.store(book, now, now)
            done = i + 1
        file.store(book, 100 * S, 0)
    except Killed:
        pass
    finally:
        outbox.close()
    return done


def events(folder: Path) -> list[dict[str, Any]]:
    outbox = Outbox(folder / "outbox.db", "dev", "boot")
    try:
        lines = [json.loads(r.line) for r in outbox.pending(1000, 10**9) if r.stream == "alarm"]
        return [{"kind": line["kind"], **line["body"]} for line in lines]
    finally:
        outbox.close()


def test_no_alarm_is_lost_or_doubled_wherever_it_is_killed(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    crash = Crash(0)
    assert play(whole, crash, 0) == len(SCRIPT)
    expected = [(e["kind"], e["alarm"], e["state"]) for e in events(whole)]
    assert len(expected) == len(SCRIPT)
    points = crash.count
    assert points >= 4 * len(SCRIPT)
    for at in range(1, points + 1):
        folder = tmp_path / f"at{at}"
        folder.mkdir()
        at_step = play(folder, Crash(at), 0)
        # what was measured at the step of the crash is measured again, as in life
        play(folder, Crash(0), at_step)
        found = events(folder)
        assert [(e["kind"], e["alarm"], e["state"]) for e in found] == expected, f"killed at point {at}"
        assert [e["change"] for e in found] == list(range(1, len(found) + 1))


def test_a_disk_that_refuses_keeps_alarms_for_later(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", "dev", "boot")
    full = True

    def write(path: Path, data: bytes) -> None:
        if full:
            raise ResourceError("the disk is full")
        replace_file(path, data)

    file = AlarmFile(tmp_path / alarm_file.NAME, "boot", outbox, write)
    book = AlarmBook(places())
    book.observe("pump/hot", 2, {}, S, 1)
    with pytest.raises(ResourceError):
        file.store(book, S, 1)
    full = False
    assert file.store(book, 2 * S, 1)
    assert outbox.head("alarm") == 1
    outbox.close()


def test_state_and_shelf_survive_a_restart_and_a_reboot(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", "dev", "boot")
    path = tmp_path / alarm_file.NAME
    file = AlarmFile(path, "boot", outbox)
    book = AlarmBook(places())
    book.observe("pump/anomaly", 3, {"value": 4.0}, 10 * S, 77)
    book.ask("ack", "pump/anomaly", "ann", 0, 10 * S)
    book.ask("shelve", "pump/hot", "ann", 100, 10 * S)
    book.run("pump", 7200.0)
    file.store(book, 20 * S, 1)
    for boot, now, left_s in (("boot", 50 * S, 60), ("other", 3 * S, 90)):
        saved, told, _ = AlarmFile(path, boot, outbox).load(now)
        again = AlarmBook(places(), saved, told)
        alarm = again.saved().alarms[0]
        assert (alarm.state, alarm.severity, alarm.raised_wall_ns, alarm.by) == (AlarmState.ACKNOWLEDGED, 3, 77, "ann")
        assert again.untold == []
        assert again.hours_s == {"pump": 7200.0}
        again.observe("pump/anomaly", 3, {}, now, 1)
        assert again.untold == []  # it is the same alarm
        again.expire(now + (left_s - 1) * S)
        assert again.saved().alarms[1].state is AlarmState.SHELVED
        again.expire(now + left_s * S)
        assert again.saved().alarms[1].state is AlarmState.NORMAL
    outbox.close()


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"v": 2}', '{"v": 1, "boot_id": "b", "mono_ns": 0}', "\x00", "[" * 10**5]
)
def test_a_damaged_file_is_put_aside_and_told(tmp_path: Path, text: str) -> None:
    outbox = Outbox(tmp_path / "outbox.db", "dev", "boot")
    path = tmp_path / alarm_file.NAME
    path.write_text(text)
    saved, told, problem = AlarmFile(path, "boot", outbox).load(0)
    assert (saved, told) == (None, 0)
    assert "damaged" in problem
    assert path.with_name("alarms.json.damaged").read_text() == text
    outbox.close()


def test_an_alarm_that_is_not_configured_any_more_is_told_as_removed() -> None:
    book = AlarmBook(places())
    book.observe("pump/hot", 2, {}, S, 1)
    again = AlarmBook(places()[:1], book.saved(), 1)
    assert [(t.kind, t.body["alarm"]) for t in again.untold] == [("removed", "pump/hot")]
