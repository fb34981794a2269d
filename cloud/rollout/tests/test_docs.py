"""The reference page says what the code does: every key of a plan with its default, every row of the state tables."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from cloud.rollout.plan import Abort, Group, Plan
from cloud.rollout.states import DEVICE, GROUP, ROLLOUT

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "rollouts.md").read_text(encoding="utf-8")


def test_every_key_of_a_plan_is_there_with_its_default() -> None:
    for kind in (Plan, Group):
        for f in fields(kind):
            assert f"| `{f.name}` |" in PAGE, f.name
    for f in fields(Abort):
        assert f"`{f.name}` {f.default:g}" in PAGE, f.name
    for name in ("silent_after_s", "stuck_after_s", "absent_after_s", "tries", "retry_s"):
        assert f"| `{name}` | {getattr(Plan(), name):g} |" in PAGE, name
    assert f"| `success` | {Group('g').success:g} |" in PAGE


def test_the_state_tables_are_those_of_the_code() -> None:
    for table in (ROLLOUT, GROUP, DEVICE):
        for (state, event), after in table.items():
            assert f"| `{state.value}` | {event.value} | `{after.value}` |" in PAGE
    rows = [line for line in PAGE.partition("## States")[2].splitlines() if line.startswith("| `")]
    assert len(rows) == len(ROLLOUT) + len(GROUP) + len(DEVICE)
