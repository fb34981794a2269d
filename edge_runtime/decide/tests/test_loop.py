"""The control loop against a PLC and a camera in memory, with a real bundle and a real outbox."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_runtime.decide.decision import Health, Result
from edge_runtime.decide.jobs import ReviewFolder, Shadow
from edge_runtime.decide.loop import Settings
from edge_runtime.decide.models import Models
from edge_runtime.decide.tests.plant import Plant, model
from edge_runtime.errors import EndpointError
from edge_runtime.field.driver import Value
from edge_runtime.tests.bundles import make_bundle, make_frame
from edge_runtime.wire.manifest import GuardLimits


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path, Models(model(make_bundle(tmp_path / "b"), tmp_path), {}))


def test_pass_and_reject_with_one_write_each_and_an_event_each(plant: Plant) -> None:
    plant.plc.values |= {"lot": 70_000, "serial": 123_456, "recipe": 3}
    assert plant.part(1) == Result.PASS
    assert plant.part(2, defect=True) == Result.REJECT
    answers = [w for w in plant.plc.writes if "result_seq" in w]
    assert [a["result_seq"] for a in answers] == [1, 2]
    assert all(set(a) == {"result_seq", "result", "score"} for a in answers)
    assert answers[0]["score"] < 300 < 500 <= answers[1]["score"] <= 1000
    bodies = [e.body for e in plant.events("decision")]
    assert [(b["part_epoch"], b["part_seq"], b["result"]) for b in bodies] == [(1, 1, 1), (1, 2, 2)]
    assert (bodies[0]["lot"], bodies[0]["serial"], bodies[0]["recipe"]) == (70_000, 123_456, 3)
    assert len(bodies[0]["bundle_digest"]) == 64
    assert bodies[0]["engine"] == "reference"


def test_the_answer_is_written_before_the_record(plant: Plant) -> None:
    at_answer: list[int] = []
    plant.plc.on_write = lambda w: at_answer.append(plant.outbox.head("decision")) if "result_seq" in w else None
    plant.part(1)
    assert at_answer == [0]
    assert plant.outbox.head("decision") == 1


def test_a_bundle_may_ask_for_the_record_first(tmp_path: Path) -> None:
    plant = Plant(tmp_path, Models(model(make_bundle(tmp_path / "b", audit="required"), tmp_path), {}))
    at_answer: list[int] = []
    plant.plc.on_write = lambda w: at_answer.append(plant.outbox.head("decision")) if "result_seq" in w else None
    assert plant.part(1) == Result.PASS
    assert at_answer == [1]


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (np.zeros((64, 64), np.uint8), "frame_black"),
        (np.full((64, 64), 255, np.uint8), "frame_saturated"),
        (np.zeros((8, 8), np.uint8), "frame_wrong_size"),
    ],
)
def test_a_bad_frame_is_reviewed_and_not_guessed(plant: Plant, pixels: np.ndarray, kind: str) -> None:
    assert plant.part(1, pixels=pixels) == Result.REVIEW
    assert plant.kinds("fault") == [kind]
    assert plant.health() is Health.DEGRADED
    assert plant.part(2) == Result.PASS
    assert plant.health() is Health.NOMINAL


def test_a_frozen_camera_is_noticed(plant: Plant) -> None:
    same = make_frame(False, 7)
    assert plant.part(1, pixels=same) == Result.PASS
    assert plant.part(2, pixels=same.copy()) == Result.REVIEW
    assert plant.kinds("fault") == ["frame_frozen"]


def test_no_frame_in_time_is_a_fault(plant: Plant) -> None:
    plant.plc.values["part_seq"] = 1
    plant.turns()
    assert plant.plc.values["result"] == Result.FAULT
    assert plant.kinds("fault") == ["frame_missing"]


def test_a_missed_deadline_answers_fault_and_is_counted(plant: Plant) -> None:
    plant.on_frame = lambda: plant.clock.advance(0.030)
    assert plant.part(1) == Result.FAULT
    assert plant.kinds("fault") == ["deadline_missed"]
    assert plant.loop.counts["deadline_missed"] == 1
    assert plant.events("decision")[0].body["reason"] == "deadline missed in step frame"


def test_guard_vetoes_reach_the_plc_as_fault(plant: Plant) -> None:
    plant.plc.values["line_state"] = 11
    assert plant.part(1) == Result.FAULT
    veto = plant.events("fault")[0]
    assert (veto.kind, veto.body["check"], veto.body["wanted"]) == ("veto", "interlock", 1)


def test_a_runaway_trigger_is_not_answered(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", guard=GuardLimits(max_answers_per_s=3))
    plant = Plant(tmp_path, Models(model(bundle, tmp_path), {}))
    assert [plant.part(seq) for seq in range(1, 6)] == [1, 1, 1, 0, 0]
    assert [e.body["check"] for e in plant.events("fault")] == ["rate", "rate"]
    plant.clock.advance(1.0)
    assert plant.part(6) == Result.PASS


def test_wrap_skip_and_reset(plant: Plant) -> None:
    for seq in (65534, 65535, 1, 4):
        assert plant.part(seq) == Result.PASS
    plant.plc.values |= {"part_seq": 0, "result_seq": 0}
    plant.turns()
    assert plant.part(1) == Result.PASS
    found = [(e.body["part_epoch"], e.body["part_seq"]) for e in plant.events("decision")]
    assert found == [(1, 65534), (1, 65535), (2, 1), (2, 4), (3, 1)]
    assert [(e.kind, e.body.get("missed")) for e in plant.events("fault")] == [("missed_triggers", 2)]


def test_an_unchanged_trigger_is_answered_once(plant: Plant) -> None:
    plant.part(5)
    plant.turns(50)
    assert sum("result_seq" in w for w in plant.plc.writes) == 1


def test_a_plc_that_is_off_at_start_is_tried_again(plant: Plant) -> None:
    plant.plc.alive = False
    plant.turns(100)
    assert plant.plc.connects == 0
    assert plant.kinds("fault") == ["plc_lost"]
    plant.plc.alive = True
    plant.clock.advance(3)
    assert plant.part(1) == Result.PASS


def test_a_plc_that_goes_away_is_one_fault_and_comes_back(plant: Plant) -> None:
    plant.part(1)
    plant.plc.alive = False
    plant.turns(200)
    plant.plc.alive = True
    plant.clock.advance(3)
    assert plant.part(2) == Result.PASS
    assert plant.kinds("fault") == ["plc_lost"]
    assert len(plant.events("decision")) == 2


def test_a_camera_that_is_gone_costs_a_fault_answer_and_comes_back(plant: Plant) -> None:
    plant.part(1)
    plant.camera.alive = False
    assert plant.part(2) == Result.FAULT
    assert plant.part(3) == Result.FAULT
    plant.camera.alive = True
    plant.clock.advance(3)
    plant.turns()
    assert plant.part(4) == Result.PASS
    assert plant.health() is Health.NOMINAL


def test_heartbeat_moves_and_health_is_written(plant: Plant) -> None:
    plant.turns(3)
    first = plant.plc.values["heartbeat"]
    plant.clock.advance(0.3)
    plant.turns(3)
    assert plant.plc.values["heartbeat"] == first + 1
    assert plant.plc.values["health"] == Health.NOMINAL


def test_the_reject_pulse_returns_to_rest(tmp_path: Path) -> None:
    plant = Plant(tmp_path, Models(model(make_bundle(tmp_path / "b"), tmp_path), {}), Settings(pulse_ms=60))
    plant.part(1, defect=True)
    assert plant.plc.values["reject_coil"] is True
    plant.clock.advance(0.06)
    plant.turns(3)
    assert plant.plc.values["reject_coil"] is False


def test_the_pulse_is_at_rest_after_stop_and_after_a_new_start(tmp_path: Path) -> None:
    plant = Plant(tmp_path, Models(model(make_bundle(tmp_path / "b"), tmp_path), {}), Settings(pulse_ms=60))
    plant.part(1, defect=True)
    plant.restart()
    plant.turns(2)
    assert plant.plc.values["reject_coil"] is False
    plant.part(2, defect=True)
    plant.loop.stop()
    assert plant.plc.values["reject_coil"] is False


# ── crashes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def crash_after_answer(plant: Plant, seq: int, defect: bool = False) -> None:
    """The loop dies between the answer and the record."""

    class KilledError(BaseException):
        pass

    def die(written: dict[str, Value]) -> None:
        if "result_seq" in written:
            raise KilledError

    plant.plc.on_write = die
    plant.trigger(seq, defect)
    with pytest.raises(KilledError):
        plant.turns()
    plant.plc.on_write = None
    plant.restart()


def test_an_answer_without_a_record_is_found_at_start(plant: Plant) -> None:
    plant.plc.values |= {"serial": 5}
    plant.part(1)
    crash_after_answer(plant, 2, defect=True)
    plant.turns()
    assert plant.kinds("decision") == ["decision", "unrecorded"]
    body = plant.events("decision")[1].body
    assert (body["part_epoch"], body["part_seq"], body["result"], body["serial"]) == (1, 2, 2, 5)
    plant.restart()
    plant.turns()
    assert plant.part(3) == Result.PASS
    assert [e.body["part_seq"] for e in plant.events("decision")] == [1, 2, 3]


def test_an_unrecorded_part_after_a_wrap_opens_the_next_epoch(plant: Plant) -> None:
    plant.part(65535)
    crash_after_answer(plant, 1)
    plant.turns()
    assert [(e.body["part_epoch"], e.body["part_seq"]) for e in plant.events("decision")] == [(1, 65535), (2, 1)]


def test_an_answer_whose_confirmation_was_lost_is_accounted_once(plant: Plant) -> None:
    def lost(written: dict[str, Value]) -> None:
        if "result_seq" in written:
            plant.plc.on_write = None
            raise EndpointError("the answer to the write was lost")

    plant.plc.on_write = lost
    plant.trigger(1)
    plant.turns()
    plant.clock.advance(3)
    plant.turns()
    assert plant.kinds("decision") == ["unrecorded"]


def test_parts_that_passed_while_control_was_dead_are_told(plant: Plant) -> None:
    plant.part(10)
    plant.restart()
    assert plant.part(15) == Result.PASS
    assert plant.events("fault")[0].body["missed"] == 4


def test_a_part_that_waits_at_start_is_answered(plant: Plant) -> None:
    assert plant.part(7) == Result.PASS


def test_recorded_first_but_never_answered_is_told(tmp_path: Path) -> None:
    plant = Plant(tmp_path, Models(model(make_bundle(tmp_path / "b", audit="required"), tmp_path), {}))
    plant.part(1)
    plant.plc.values |= {"result_seq": 0, "result": 0}
    plant.restart()
    plant.turns()
    assert plant.kinds("fault") == ["answer_unconfirmed"]
    assert len(plant.events("decision")) == 1


def test_a_full_disk_does_not_stop_the_line_and_loses_nothing(plant: Plant) -> None:
    plant.part(1)
    plant.disk.full = True
    assert [plant.part(seq) for seq in (2, 3)] == [Result.PASS, Result.PASS]
    assert plant.health() is Health.DEGRADED
    plant.disk.full = False
    plant.part(4)
    assert [e.body["part_seq"] for e in plant.events("decision")] == [1, 2, 3, 4]
    assert plant.health() is Health.NOMINAL


# ── more than one bundle ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_recipe_code_selects_the_bundle_between_two_parts(tmp_path: Path) -> None:
    default = model(make_bundle(tmp_path / "a"), tmp_path)
    other = model(make_bundle(tmp_path / "b", seed=1, reject=0.0, review=0.0), tmp_path)
    plant = Plant(tmp_path, Models(default, {9: other}))
    assert plant.part(1) == Result.PASS
    plant.plc.values["recipe"] = 9
    assert plant.part(2) == Result.REJECT
    plant.plc.values["recipe"] = 4
    assert plant.part(3) == Result.PASS
    digests = [e.body["bundle_digest"] for e in plant.events("decision")]
    assert digests == [default.digest, other.digest, default.digest]


def test_without_a_model_every_part_is_a_fault(tmp_path: Path) -> None:
    plant = Plant(tmp_path, Models(None, {}))
    assert plant.part(1) == Result.FAULT
    assert plant.health() is Health.SAFE


def test_a_shadow_model_tells_only_where_it_disagrees(tmp_path: Path) -> None:
    models = Models(model(make_bundle(tmp_path / "a"), tmp_path), {})
    shadow = model(make_bundle(tmp_path / "b", seed=1, reject=0.0, review=0.0), tmp_path)
    plant = Plant(tmp_path, models, jobs=(Shadow(shadow),))
    assert plant.part(1) == Result.PASS
    assert plant.part(2, defect=True) == Result.REJECT
    plant.turns()
    found = [e.body for e in plant.events("metric") if e.kind == "shadow_disagreement"]
    assert [(b["part_seq"], b["result"], b["shadow_result"]) for b in found] == [(1, 1, 2)]
    assert found[0]["shadow_digest"] == shadow.digest


@pytest.mark.parametrize("share", [False, True])
def test_review_frames_stay_here_within_their_bytes_unless_shared(tmp_path: Path, share: bool) -> None:
    bundle = make_bundle(tmp_path / "a", reject=1.0, review=0.0)
    folder = tmp_path / "review"
    plant = Plant(tmp_path, Models(model(bundle, tmp_path), {}), jobs=(ReviewFolder(folder, 12_000, share),))
    for seq in range(1, 9):
        assert plant.part(seq) == Result.REVIEW
    plant.turns()
    files = sorted(folder.glob("*.png"))
    assert files[-1].name == "000001-00008.png"
    assert 0 < sum(f.stat().st_size for f in files) <= 12_000
    assert len(plant.events("review")) == (8 if share else 0)
