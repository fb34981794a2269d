"""What is answered when the model cannot, or must not, speak. Pure; one table, the first row that holds decides.

fault kind         answer    when
camera_lost        fault     the camera is gone
frame_missing      fault     the trigger's frame did not come in time
frame_<problem>    review    the frame is black, saturated, frozen, blurred, occluded or has a wrong size
no_model           fault     no engine is loaded, or it failed on this frame
deadline_missed    fault     a step ended after the deadline
(none)             the model's judgement
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.decide.decision import Result
from edge_runtime.infer.post import Judgement


@dataclass(frozen=True)
class Findings:
    """What the steps of one inspection found; None or "" where there is nothing to say."""

    camera_error: str = ""
    frame_missing: str = ""
    frame_problem: str = ""
    model_error: str = ""
    late_step: str = ""
    judgement: Judgement | None = None


@dataclass(frozen=True)
class Ruling:
    """`fault` is the kind of the fault Event to raise, "" for none."""

    result: Result
    score: float | None
    label: str
    reason: str
    fault: str = ""


def rule(found: Findings) -> Ruling:
    if found.camera_error:
        return Ruling(Result.FAULT, None, "", found.camera_error, "camera_lost")
    if found.frame_missing:
        return Ruling(Result.FAULT, None, "", found.frame_missing, "frame_missing")
    if found.frame_problem:
        return Ruling(Result.REVIEW, None, "", f"frame {found.frame_problem}", f"frame_{found.frame_problem}")
    if found.model_error or found.judgement is None:
        return Ruling(Result.FAULT, None, "", found.model_error or "no model is loaded", "no_model")
    j = found.judgement
    if found.late_step:
        return Ruling(Result.FAULT, j.score, j.label, f"deadline missed in step {found.late_step}", "deadline_missed")
    return Ruling(Result(j.result), j.score, j.label, j.reason)
