from __future__ import annotations

import pytest

from firmware_sim.config import LineSection, RecipeSection
from firmware_sim.packml import State
from firmware_sim.plc import seq_after
from firmware_sim.scenario import Fault
from firmware_sim.tests.bench import MS, Table


def honest(table: Table) -> None:
    """A device that answers every part that it sees, once, rightly."""
    seen = [0]

    def look(seq: int) -> None:
        if seq not in (0, seen[0]):
            seen[0] = seq
            bad = table.plc._open[seq].truth.defect
            table.answer(seq, 2 if bad else 1)

    table.device = look


def test_a_perfect_device_gets_a_perfect_score_and_the_latency_that_it_took() -> None:
    table = Table(LineSection(parts=30))
    honest(table)
    table.run_to_the_end()
    status = table.plc.status()
    assert (status["parts"], status["answered"], status["unanswered"], status["bad"]) == (30, 30, 0, 10)
    assert (status["recall"], status["overkill"], status["escape"]) == (1.0, 0.0, 0.0)
    assert status["trigger_to_answer_ms"]["p50"] == status["trigger_to_answer_ms"]["max"] == 3.0
    assert status["line_state_name"] == "Completed"
    assert [p.part_seq for p in table.settled] == list(range(1, 31))


def test_silence_means_reject() -> None:
    table = Table(LineSection(parts=9))
    table.run_to_the_end()
    status = table.plc.status()
    assert (status["unanswered"], status["diverted"]) == (9, 9)
    assert (status["recall"], status["overkill"]) == (1.0, 1.0)
    assert all(p.diverted and p.latency_ms is None for p in table.settled)


def test_the_frame_is_sent_when_the_register_already_has_its_number() -> None:
    table = Table(LineSection(parts=5))
    table.run_to_the_end()
    assert table.sent == [(n, n) for n in range(1, 6)]


def test_lot_serial_and_recipe_are_there_before_part_seq() -> None:
    table = Table(LineSection(parts=6, lot_size=4), recipe=RecipeSection((7, 9), change_every_parts=3))
    seen: list[tuple[int, ...]] = []
    put = table.plc.registers.put

    def watched(name: str, value: int) -> None:
        put(name, value)
        if name == "part_seq":
            seen.append(tuple(table.get(n) for n in ("part_seq", "recipe", "lot", "serial")))

    table.plc.registers.put = watched  # type: ignore[method-assign]
    table.run_to_the_end()
    assert seen == [(1, 7, 1, 1), (2, 7, 1, 2), (3, 7, 1, 3), (4, 9, 1, 4), (5, 9, 2, 5), (6, 9, 2, 6)]


def test_a_late_answer_counts_while_the_part_has_not_met_the_gate() -> None:
    table = Table(LineSection(parts=12, jitter=0.0, gate_distance_mm=160.0))
    table.run(lambda: len(table.plc._belt) == 3)
    table.answer(1, 1)
    table.run(lambda: bool(table.settled))
    assert (table.settled[0].part_seq, table.settled[0].diverted) == (1, False)
    table.answer(1, 1)
    assert table.plc.status()["answers_after_gate"] == 1
    table.answer(999, 1)
    assert table.plc.status()["stray_answers"] == 1
    table.answer(2, 9)
    assert table.plc.status()["invalid_answers"] == 1


def test_the_first_answer_decides_and_a_second_one_is_counted() -> None:
    table = Table(LineSection(parts=3))
    table.run(lambda: table.get("part_seq") == 1)
    table.answer(1, 2)
    table.answer(1, 1)
    table.run_to_the_end()
    part = table.settled[0]
    assert (part.result, part.answers, part.answers_differ, part.diverted) == (2, 2, True, True)
    assert table.plc.status()["double_answers"] == 1


def test_it_waits_for_the_heartbeat_to_move() -> None:
    table = Table(LineSection(parts=2, wait_for_device=True))
    with pytest.raises(AssertionError, match="Idle"):
        table.run(lambda: table.plc.state is State.EXECUTE, limit=50)
    table.plc.registers.client_writes("holding", 103, [1])
    table.run_to_the_end()


def test_commands_move_the_line_and_bad_ones_are_counted() -> None:
    table = Table(LineSection())
    write = table.plc.registers.client_writes
    table.run(lambda: table.get("part_seq") == 3)
    write("holding", 20, [4])
    table.run(lambda: table.plc.state is State.HELD)
    assert (table.get("line_state"), table.get("belt_speed"), table.get("command")) == (11, 0, 0)
    write("holding", 20, [2])
    write("holding", 20, [77])
    assert table.plc.status()["refused_commands"] == 2
    write("holding", 20, [5])
    table.run(lambda: table.get("part_seq") == 6)
    assert table.get("belt_speed") == 500
    write("holding", 20, [10])
    table.run_to_the_end()
    assert table.plc.status()["parts"] == 6
    write("holding", 20, [1])
    table.run(lambda: table.plc.state is State.IDLE)
    write("holding", 20, [2])
    table.run(lambda: table.get("part_seq") == 8)


def test_a_coil_that_is_left_on_is_switched_off_and_a_stuck_one_too() -> None:
    table = Table(LineSection(coil_timeout_ms=200), {2: Fault("stuck_coil")})
    write = table.plc.registers.client_writes
    table.run(lambda: table.get("part_seq") == 1)
    table.answer(1, 2)
    write("coil", 100, [1])
    table.run(lambda: not table.get("reject_coil"))
    assert table.plc.status()["coil_timeouts"] == 1
    table.run(lambda: bool(table.settled))
    assert table.settled[0].pulse_seen
    table.run(lambda: table.get("part_seq") >= 3)
    write("coil", 100, [1])
    write("coil", 100, [0])
    assert table.get("reject_coil") == 1
    table.run(lambda: not table.get("reject_coil"))
    write("coil", 100, [1])
    write("coil", 100, [0])
    assert table.get("reject_coil") == 0
    assert table.plc.status()["coil_timeouts"] == 2


@pytest.mark.parametrize(
    ("now", "faults", "after"),
    [
        ((0, 1), (), (1, 1)),
        ((65534, 1), (), (65535, 1)),
        ((65535, 1), (), (1, 2)),
        ((4, 1), (Fault("skip_seq", options={"skip": 1}),), (6, 1)),
        ((65535, 1), (Fault("skip_seq", options={"skip": 2}),), (3, 2)),
        ((9, 1), (Fault("wrap16", options={"to": 65533}),), (65533, 1)),
        ((65534, 1), (Fault("wrap16", options={"to": 65533}),), (65533, 2)),
    ],
)
def test_part_numbers(now: tuple[int, int], faults: tuple[Fault, ...], after: tuple[int, int]) -> None:
    assert seq_after(*now, faults) == after


def test_wrap_skip_drop_and_duplicate_keep_parts_apart_and_answered() -> None:
    faults = {
        3: Fault("wrap16", options={"to": 65534}),
        7: Fault("skip_seq", options={"skip": 1}),
        9: Fault("drop_frame"),
        11: Fault("duplicate_trigger"),
    }
    table = Table(LineSection(parts=14), faults)
    honest(table)
    table.run_to_the_end()
    assert [p.part_seq for p in table.settled] == [1, 2, 3, 65534, 65535, 1, 2, 4, 5, 6, 7, 8, 9, 10]
    assert [p.epoch for p in table.settled] == [1] * 5 + [2] * 9
    assert [s for s, _ in table.sent] == [1, 2, 3, 65534, 65535, 1, 2, 4, 5, 7, 8, 8, 9, 10]
    status = table.plc.status()
    assert status["unanswered"] == 0
    assert status["faults_injected"] == {"wrap16": 1, "skip_seq": 1, "drop_frame": 1, "duplicate_trigger": 1}


def test_a_restart_clears_registers_begins_an_epoch_and_goes_on() -> None:
    table = Table(LineSection(parts=10, jitter=0.0), {6: Fault("reset_plc")})
    states: list[str] = []
    honest(table)
    inner = table.device

    def look(seq: int) -> None:
        states.append(table.plc.state.title)
        inner(seq)

    table.device = look
    table.run_to_the_end()
    assert [(p.epoch, p.part_seq) for p in table.settled] == [
        *((1, n) for n in range(1, 7)),
        *((2, n) for n in range(1, 5)),
    ]
    assert {"Resetting", "Starting"} <= set(states)
    assert table.settled[6].fault_injected == "reset_plc"
    assert table.plc.status()["unanswered"] == 0
    assert [p.serial for p in table.settled] == list(range(1, 11))


def test_a_plc_that_falls_silent_marks_the_parts_that_it_leaves_without_an_answer() -> None:
    table = Table(LineSection(parts=10, jitter=0.0), {2: Fault("no_answer", options={"duration_ms": 250})})
    muted: list[int] = []
    answered: set[int] = set()

    def look(seq: int) -> None:
        if table.plc.mute:
            muted.append(seq)
        elif seq and seq not in answered:
            answered.add(seq)
            table.answer(seq, 1)

    table.device = look
    table.run_to_the_end()
    hit = [p.part_seq for p in table.settled if p.fault_injected == "no_answer"]
    assert hit == [3, 4, 5]
    assert set(muted) <= {3, 4, 5}
    assert {p.part_seq for p in table.settled if not p.answered} <= set(hit)


def test_a_heartbeat_that_stops_is_counted_once_and_the_line_runs_on() -> None:
    table = Table(LineSection(parts=60))
    table.plc.registers.client_writes("holding", 103, [1])
    table.run_to_the_end()
    assert table.plc.status()["heartbeat_losses"] == 1
    table.now_ns += 500 * MS
    assert table.plc.status()["heartbeat_age_ms"] > 2000
