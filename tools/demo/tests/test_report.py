"""The report's join of the PLC's log with the cloud's Decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tools.demo import report


def part(index: int, seq: int, answered: bool = True, result: int = 1, at_ns: int = 0) -> dict[str, Any]:
    return {
        "part_index": index, "part_seq": seq, "epoch": 1, "serial": 1000 + index, "answered": answered,
        "result": result if answered else None, "latency_ms": 2.0 if answered else None, "wall_ns_triggered": at_ns,
    }  # fmt: skip


def decision(
    seq: int, epoch: int = 1, serial: int | None = None, result: int = 1, kind: str = "decision"
) -> dict[str, Any]:
    return {
        "kind": kind, "part_seq": seq, "part_epoch": epoch, "serial": serial, "result": result,
        "engine": "onnxruntime", "variant": "int8" if kind == "decision" else None, "bundle_digest": "d" * 64,
    }  # fmt: skip


def test_everything_once() -> None:
    joined = report.join([part(1, 1), part(2, 2), part(3, 3, answered=False)], [decision(1, serial=1001), decision(2)])
    assert joined == report.Joined(2, 0, 0, (), 0, 0)


def test_a_lost_a_doubled_and_a_strange_event_are_told_apart() -> None:
    parts = [part(1, 1), part(2, 2), part(3, 3)]
    decisions = [decision(1), decision(1), decision(3), decision(9, kind="unrecorded")]
    joined = report.join(parts, decisions)
    assert (joined.duplicates, joined.missing, joined.strangers, joined.unrecorded) == (1, (2,), 1, 1)


def test_part_and_event_must_agree() -> None:
    joined = report.join([part(1, 1), part(2, 2, result=2)], [decision(1, serial=7), decision(2, result=1)])
    assert joined.disagreements == 2


@given(st.integers(1, 40), st.integers(1, 7))
def test_numbers_that_come_again_are_joined_in_order(count: int, turn: int) -> None:
    """A counter of `turn` numbers instead of 65535."""
    parts = [part(i, i % turn + 1) for i in range(count)]
    decisions = [decision(i % turn + 1, epoch=i // turn + 1, serial=1000 + i) for i in range(count)]
    joined = report.join(parts, decisions[::-1])
    assert joined == report.Joined(count, 0, 0, (), 0, 0)


def test_recovery_is_measured_from_the_kill_to_the_first_answer_after_it() -> None:
    parts = [part(1, 1, at_ns=10), part(2, 2, answered=False, at_ns=1_000_000_000)]
    parts += [part(3, 3, result=4, at_ns=1_100_000_000), part(4, 4, at_ns=1_500_000_000)]
    assert report.recoveries(parts, [500_000_000, 2_000_000_000]) == [1.002, None]


def test_a_cut_off_last_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "parts.jsonl").write_text('{"part_index": 1}\n{"part_ind')
    assert report.read_parts(tmp_path / "parts.jsonl") == [{"part_index": 1}]
