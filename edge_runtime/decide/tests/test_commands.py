"""Commands in the control loop: the Guard before anything moves, parts first, at most once, one Event each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.decide.decision import Result
from edge_runtime.decide.guard import MINUTE_NS, Guard, check_write
from edge_runtime.decide.inbox import CommandSocket, decode_request, encode_request, hand_over
from edge_runtime.decide.models import Models
from edge_runtime.decide.points import RANGES, Commands, Point, WriteRequest
from edge_runtime.decide.tests.plant import EXECUTE, POINTS, Plant, model
from edge_runtime.errors import EndpointError
from edge_runtime.field.driver import Value
from edge_runtime.tests.bundles import make_bundle
from edge_runtime.wire.manifest import GuardLimits

STOPPED = 2


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    made = Plant(tmp_path, Models(model(make_bundle(tmp_path / "b"), tmp_path), {}))
    made.plc.values["line_state"] = STOPPED
    made.turns(3)
    return made


def told(plant: Plant) -> list[tuple[str, str]]:
    return [(e.kind, e.body.get("check", "")) for e in plant.events("command")]


def written(plant: Plant, name: str) -> list[Value]:
    return [w[name] for w in plant.plc.writes if name in w]


def test_a_command_is_written_once_and_recorded(plant: Plant) -> None:
    plant.command("speed", 120)
    plant.turns(50)
    assert written(plant, "speed") == [120]
    event = plant.events("command")[0]
    assert (event.kind, event.body["id"], event.body["value"]) == ("done", "c0", 120)
    assert plant.loop.counts["commands"] == 1


@pytest.mark.parametrize(
    ("name", "value", "check"),
    [
        ("speed", 501, "range"),
        ("speed", True, "range"),
        ("lamp", 1, "range"),
        ("result", 1, "allow"),
        ("x", 1, "allow"),
    ],
)
def test_what_the_guard_refuses_is_never_written(plant: Plant, name: str, value: Value, check: str) -> None:
    plant.command(name, value)
    plant.turns(50)
    assert told(plant) == [("refused", check)]
    assert not any(name in w for w in plant.plc.writes)


def test_a_running_line_is_left_alone_unless_the_point_says_otherwise(plant: Plant) -> None:
    for state in (EXECUTE, 0):
        plant.plc.values["line_state"] = state
        plant.command("speed", 1)
        plant.turns(50)
    plant.command("lamp", True)
    plant.turns(50)
    assert told(plant) == [("refused", "interlock"), ("refused", "interlock"), ("done", "")]
    assert written(plant, "lamp") == [True]


def test_too_many_in_a_minute_are_refused(plant: Plant) -> None:
    for n in range(5):
        plant.command("speed", n)
        plant.turns(50)
    assert [kind for kind, _ in told(plant)] == ["done"] * 3 + ["refused"] * 2
    plant.clock.advance(61)
    plant.command("speed", 9)
    plant.turns(50)
    assert written(plant, "speed") == [0, 1, 2, 9]


def test_a_command_whose_time_is_up_is_expired(plant: Plant) -> None:
    plant.command("speed", 1, seconds=0.0)
    plant.turns(50)
    assert told(plant) == [("expired", "staleness")]


def test_a_part_goes_first(plant: Plant) -> None:
    plant.plc.values["line_state"] = EXECUTE
    plant.turns(50)
    for _ in range(4):
        plant.command("lamp", True)
    plant.trigger(1)
    plant.turns(50)
    order = ["result" if "result_seq" in w else "lamp" for w in plant.plc.writes if "result_seq" in w or "lamp" in w]
    assert order == ["result", "lamp", "lamp", "lamp", "lamp"]
    assert plant.plc.values["result"] == Result.PASS


def test_between_two_commands_the_trigger_is_looked_at(plant: Plant) -> None:
    """However many commands wait, a part never waits for more than the one that is being written."""
    plant.plc.values["line_state"] = EXECUTE
    for _ in range(4):
        plant.command("lamp", True)
    seen: list[int] = []

    def on_write(values: dict[str, Value]) -> None:
        if "lamp" in values and not seen:
            seen.append(1)
            plant.trigger(1)

    plant.plc.on_write = on_write
    plant.turns(50)
    order = ["result" if "result_seq" in w else "lamp" for w in plant.plc.writes if "result_seq" in w or "lamp" in w]
    assert order == ["lamp", "result", "lamp", "lamp", "lamp"]


def test_a_write_that_is_not_confirmed_is_unknown_and_not_tried_again(plant: Plant) -> None:
    def lost(values: dict[str, Value]) -> None:
        if "speed" in values:
            plant.plc.on_write = None
            raise EndpointError("the answer to the write was lost")

    plant.plc.on_write = lost
    plant.command("speed", 7)
    plant.turns(50)
    plant.clock.advance(3)
    plant.turns(50)
    assert told(plant) == [("unknown", "")]
    assert written(plant, "speed") == [7]


def test_without_a_plc_a_command_is_refused_at_once(plant: Plant) -> None:
    plant.plc.alive = False
    plant.turns(20)
    plant.command("speed", 7)
    plant.turns(3)
    assert told(plant) == [("refused", "plc")]


def test_killed_between_write_and_record_it_is_not_done_again(plant: Plant) -> None:
    class KilledError(BaseException):
        pass

    def die(values: dict[str, Value]) -> None:
        if "speed" in values:
            raise KilledError

    plant.plc.on_write = die
    plant.command("speed", 7)
    with pytest.raises(KilledError):
        plant.turns(50)
    plant.plc.on_write = None
    plant.restart()
    plant.turns(100)
    assert written(plant, "speed") == [7]
    assert told(plant) == []  # `link` tells that its end is not known


# ── the Guard by itself ─────────────────────────────────────────────────────────────────────────────────────────────

numbers = st.integers(-(2**33), 2**33) | st.floats() | st.booleans()


@given(
    st.sampled_from(["speed", "lamp", "other"]), numbers, st.integers(0, 20), st.lists(st.integers(0, 10**12), max_size=9),
    st.integers(0, 10**12), st.integers(0, 10**12),
)  # fmt: skip
def test_what_passes_is_within_every_limit(
    name: str, value: Any, state: int, recent: list[int], until_ns: int, now_ns: int
) -> None:
    request = WriteRequest("c", "cloud", name, value, until_ns)
    if check_write(request, POINTS, GuardLimits(), state, recent, now_ns).veto:
        return
    point = POINTS[name]
    assert (isinstance(value, bool)) == (point.type == "bool")
    assert point.low <= value <= point.high
    assert now_ns < until_ns
    assert point.while_running or state not in (0, *GuardLimits().run_states)
    assert sum(1 for t in recent if now_ns - t < MINUTE_NS) < point.max_per_min


def test_a_command_that_failed_counts_for_the_rate_as_well() -> None:
    guard = Guard({"speed": replace(POINTS["speed"], max_per_min=1)})
    request = WriteRequest("c", "cloud", "speed", 1, 10**12)
    assert not guard.check_write(request, GuardLimits(), STOPPED, 5).veto
    guard.commanded("speed", 5)
    assert guard.check_write(request, GuardLimits(), STOPPED, 6).veto == "rate"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"address": 65536}, "address"),
        ({"address": 65535, "type": "uint32"}, "address"),
        ({"low": -1}, "low"),
        ({"high": 65536}, "high"),
        ({"low": 5, "high": 4}, "low"),
        ({"type": "bool", "high": 1}, "does not fit"),
        ({"space": "coil"}, "does not fit"),
        ({"max_per_min": 0}, "max_per_min"),
    ],
)
def test_a_point_that_cannot_be_is_told(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Point(**{"address": 110, "low": 0, "high": 10, **fields})


@pytest.mark.parametrize("kind", RANGES)
def test_every_type_has_its_range_and_no_more(kind: Any) -> None:
    low, high = RANGES[kind]
    point = Point(9, low, high, kind, "coil" if kind == "bool" else "holding")
    assert point.problem(bool(high) if kind == "bool" else int(high)) == ""
    assert point.problem("1")
    assert point.problem(float("nan"))
    if kind != "bool":
        assert point.problem(high * 2)
        assert point.problem(True)


def test_only_what_has_a_table_can_be_allowed() -> None:
    with pytest.raises(ValueError, match=r"commands\.points\.speed"):
        Commands(("speed",))
    with pytest.raises(ValueError, match="max_age_s"):
        Commands(max_age_s=0)


# ── the socket between the processes ────────────────────────────────────────────────────────────────────────────────


def test_the_socket_hands_over_once_and_belongs_to_this_user(tmp_path: Path) -> None:
    path, request = tmp_path / "run" / "control.sock", WriteRequest("c1", "cloud", "speed", 7, 99)
    assert not hand_over(path, request)
    inbox = CommandSocket(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert inbox() is None
    assert hand_over(path, request)
    assert inbox() == request
    assert inbox() is None
    assert hand_over(path, request)
    inbox.close()
    again = CommandSocket(path)  # what lay in the old one is gone
    assert again() is None
    again.close()
    assert not hand_over(path, request)


@pytest.mark.parametrize(
    "data", [b"", b"1", b"{}", b"[" * 3000, b'{"id":1,"source":"","name":"","value":1,"until_mono_ns":1}']
)
def test_what_is_no_request_is_none(data: bytes) -> None:
    assert decode_request(data) is None
    request = WriteRequest("c1", "cloud", "lamp", True, 99)
    assert decode_request(encode_request(request)) == request
