"""Assignments and the status that is told with each question for one: there and back, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from edge_runtime.wire.assignment import LONGEST_NS, Assignment, Item, check_slot_set, read_assignment
from edge_runtime.wire.update_status import LIMIT_BYTES, SlotStatus, UpdateState, UpdateStatus, read_status

ITEM = Item("models/surface/1.2.0.tar", "ab" * 32, "r-1", "activate", "22:00-04:30")
ASSIGNMENT = Assignment("press-1", 7, 10, 20, {"default": ITEM, "runtime": replace(ITEM, go="stage", window="")})
STATUS = UpdateStatus(
    "press-1",
    "boot",
    "x86_64",
    5,
    {"root": 1, "index": 4},
    {"default": SlotStatus(UpdateState.TRIAL, ITEM.target, ITEM.sha256, "r-1", 7, measured={"p99_ms": 3.2})},
)


def test_there_and_back() -> None:
    assert read_assignment(ASSIGNMENT.body()) == ASSIGNMENT
    assert read_status(STATUS.to_json()) == STATUS


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target", "models/../../etc/passwd.tar"),
        ("target", "keys/x/1.tar"),
        ("target", "models/a/1.zip"),
        ("sha256", "AB" * 32),
        ("go", "run"),
        ("window", "24:00-25:00"),
        ("rollout", "a b"),
        ("target", 7),
        ("window", None),
    ],
)
def test_an_item_that_is_not_one_is_refused(field: str, value: Any) -> None:
    data = json.loads(ASSIGNMENT.body())
    data["items"]["default"][field] = value
    with pytest.raises(ValueError, match=f"assignment: {field}"):
        read_assignment(json.dumps(data).encode())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"counter": 0}, "counter"),
        ({"expires_ns": 10}, "expires_ns"),
        ({"expires_ns": 11 + LONGEST_NS}, "expires_ns"),
        ({"items": {"A B": vars(ITEM)}}, "slot set"),
        ({"items": {"default": {}}}, "expected an object"),
        ({"extra": 1}, "unknown field"),
        ({"items": {f"s{i}": vars(ITEM) for i in range(33)}}, "the limit is 32"),
    ],
)
def test_an_assignment_that_is_not_one_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_assignment(json.dumps(json.loads(ASSIGNMENT.body()) | change).encode())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"v": 2}, "v = 1"),
        ({"floor": {"roots": 1}}, "floor may have"),
        ({"floor": {"root": -1}}, "floor.root"),
        ({"slots": []}, "slots must"),
        ({"slots": {"default": {"state": "well"}}}, "unknown state"),
        ({"hardware": "x" * 501}, "hardware"),
        ({"more": 1}, "unknown field more"),
        ({"slots": {"default": {"state": "idle", "measured": {"a": "b"}}}}, "measured.a"),
    ],
)
def test_a_status_that_is_not_one_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_status(json.dumps(json.loads(STATUS.to_json()) | change).encode())


def test_a_status_of_any_size_is_not_read() -> None:
    with pytest.raises(ValueError, match="over the limit"):
        read_status(b" " * (LIMIT_BYTES + 1))


@pytest.mark.parametrize(
    ("slot_set", "kind"),
    [
        ("default", "models"), ("recipe-7", "models"), ("asset-p-1-anomaly", "models"), ("asset-p-rul", "models"),
        ("runtime", "runtime"), ("config", "config"), ("os", "os"),
    ],
)  # fmt: skip
def test_a_slot_set_takes_one_kind_of_target(slot_set: str, kind: str) -> None:
    for other in ("models", "runtime", "config", "os"):
        if other == kind:
            check_slot_set(slot_set, f"{other}/x/1.tar")
        else:
            with pytest.raises(ValueError, match=f"takes no {other}/x/1.tar: expected"):
                check_slot_set(slot_set, f"{other}/x/1.tar")


@pytest.mark.parametrize("name", ["vision", "shadow", "recipe-x", "Default", "", "asset-p-other", "recipe-" + "1" * 30])
def test_a_slot_set_that_no_device_has_is_told(name: str) -> None:
    with pytest.raises(ValueError, match="expected default, recipe-<code>"):
        check_slot_set(name, "models/x/1.tar")
