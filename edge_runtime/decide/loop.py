"""The control loop: see the trigger, take its frame, judge it, pass the Guard, answer the PLC, record the Event.

- This file is the only one that calls `Driver.write`, and every answer has passed `Guard`.
- Answer first, then the record, before the next part is taken (`audit = "required"`: the record first).
- A PLC or a camera that is gone is a state, tried again with back-off; a camera that is gone costs a `fault` answer a part.
- After each connection the PLC's result registers are compared with the outbox: an answer that has no Event (a crash in
  between) is recorded as `unrecorded`.
- A command from outside (`inbox`) passes `Guard` too and is carried out between parts, at most once; its end is an Event.
- What can wait (heartbeat, shadow model, frames for labelling, metrics) is done between parts, one thing a turn.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_runtime import health
from edge_runtime.backoff import Backoff
from edge_runtime.clock import Clock
from edge_runtime.decide.decision import Decision, Health, Result
from edge_runtime.decide.guard import Answer, Guard, Verdict
from edge_runtime.decide.inbox import Inbox
from edge_runtime.decide.models import Job, Judges, Seen
from edge_runtime.decide.parts import Part, PartTracker
from edge_runtime.decide.points import Point, WriteRequest
from edge_runtime.decide.rules import Findings, Ruling, rule
from edge_runtime.errors import EndpointError, GudgeonError
from edge_runtime.field.camera import Camera, Frame
from edge_runtime.field.driver import Driver, Value
from edge_runtime.field.handshake import Handshake
from edge_runtime.field.tag import Quality, Sample, Tag
from edge_runtime.infer.model import Model
from edge_runtime.outbox.recorder import Item, Recorder
from edge_runtime.wire import latency
from edge_runtime.wire.envelope import Event
from edge_runtime.wire.manifest import GuardLimits

SCORE_UNKNOWN = 1000
JOBS_KEPT = 8
METRIC_PERIOD_NS = 1_000_000_000
COMMAND_PERIOD_NS = 10_000_000
SWAP_PERIOD_NS = 10_000_000


@dataclass(frozen=True)
class Settings:
    """Times in milliseconds. `pulse_ms` 0: no reject pulse."""

    deadline_ms: float = 20.0
    frame_timeout_ms: float = 15.0
    heartbeat_ms: int = 250
    pulse_ms: int = 0
    poll_ms: float = 1.0


@dataclass(frozen=True)
class Inputs:
    """One reading of the PLC; None where the PLC has no such point or refused it."""

    line_state: int
    part_seq: int
    recipe: int | None = None
    lot: int | None = None
    serial: int | None = None


class Loop:
    """One line, one camera. `step` does one turn and returns the seconds to sleep before the next; it never raises for
    what the field does. `last` is the newest Event of the decision stream (None: begin with `first_epoch`), `jobs` run
    after a part was recorded. `inbox` gives commands, which may write `points`."""

    def __init__(
        self,
        settings: Settings,
        tags: Handshake,
        driver: Driver,
        camera: Camera,
        models: Judges,
        recorder: Recorder,
        clock: Clock,
        last: Event | None = None,
        first_epoch: int = 1,
        jobs: tuple[Job, ...] = (),
        plc_backoff: Backoff | None = None,
        camera_backoff: Backoff | None = None,
        inbox: Inbox = lambda: None,
        points: Mapping[str, Point] | None = None,
    ) -> None:
        self._settings, self._tags, self._driver, self._camera = settings, tags, driver, camera
        self._models, self._recorder, self._clock, self._jobs = models, recorder, clock, jobs
        self._plc_backoff = plc_backoff or Backoff(0.1, 2.0)
        self._camera_backoff = camera_backoff or Backoff(0.1, 2.0)
        self._inbox, self._points = inbox, {name: point.tag(name) for name, point in (points or {}).items()}
        self._guard = Guard(points)
        body = last.body if last else {}
        self._recorded = PartTracker(int(body.get("part_epoch", first_epoch)), int(body.get("part_seq", 0)))
        self._tracker = self._recorded
        self._plc_up = self._camera_up = False
        self._plc_said = self._camera_said = False
        self._plc_retry_ns = self._camera_retry_ns = 0
        self._heartbeat = 0
        self._heartbeat_due_ns = self._metric_due_ns = self._command_due_ns = self._swap_due_ns = 0
        self._pulse_off_ns: int | None = None
        self._waiting: deque[tuple[Job, Seen]] = deque(maxlen=JOBS_KEPT * max(1, len(jobs)))
        self._previous: NDArray[np.uint8] | None = None
        self._conditions: set[str] = set() if models.named else {"model"}
        self._inputs = Inputs(0, 0)
        self._recipe: int | None = None
        self.health = health.after(Health.NOMINAL, self._conditions)
        self.counts: Counter[str] = Counter()
        self._latency_counts, self._latency_sum_us = [0] * latency.BUCKETS, 0

    # ── one turn ────────────────────────────────────────────────────────────────────────────────────────────────────

    def step(self) -> float:
        try:
            if not self._plc_up:
                self._refuse_command()
                return self._try_plc()
            self._inputs = inputs = self._read_inputs()
            self._tracker, part = self._tracker.see(inputs.part_seq)
            if part is None:
                return 0.0 if self._between_parts() else self._settings.poll_ms / 1000.0
            self._take(part, inputs)
            return 0.0
        except EndpointError as error:
            return self._plc_lost(error)

    def stop(self) -> None:
        """Leave the outputs at rest and close; a PLC that is gone is no error here."""
        try:
            if self._plc_up and self._pulse_off_ns is not None:
                self._driver.write([(self._tags.reject_coil, False)])
        except EndpointError:
            pass
        self._driver.close()
        self._camera.close()
        self._recorder.record()

    # ── one part ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, part: Part, inputs: Inputs) -> None:
        trigger_ns = self._clock.monotonic_ns()
        faults = self._part_faults(part)
        model = self._models.of(inputs.recipe)
        if inputs.recipe != self._recipe:
            self._recipe = inputs.recipe
            self._previous = None
        frame, found, steps, model = self._inspect(part, model, trigger_ns)
        ruling = rule(found)
        answer = Answer(part.seq, ruling.result, ruling.score, trigger_ns)
        limits = model.manifest.guard if model else GuardLimits()
        verdict = self._guard.check(answer, limits, inputs.line_state, self._clock.monotonic_ns())
        decision = self._decision(part, inputs, ruling, verdict, model, frame, steps)
        faults += self._findings_faults(ruling, verdict, decision)
        if verdict.result is None:
            self._record(*faults)
            return
        if model is not None and model.manifest.audit == "required":
            self._keep(decision, faults, trigger_ns)
            self._answer(decision)
        else:
            self._answer(decision)
            self._keep(decision, faults, trigger_ns)
        self._count(decision)
        if frame is not None:
            self._waiting.extend((job, Seen(decision, frame)) for job in self._jobs)

    def _inspect(
        self, part: Part, model: Model | None, trigger_ns: int
    ) -> tuple[Frame | None, Findings, dict[str, int], Model | None]:
        """Frame and judgement of the part within its deadline, or what stood in the way; and which model it was."""
        try:
            frame = self._frame(part, trigger_ns)
        except EndpointError as error:
            return None, Findings(camera_error=str(error)), {}, model
        after_ns = self._clock.monotonic_ns()
        steps = {"frame": (after_ns - trigger_ns) // 1000}
        if frame is None:
            return None, Findings(frame_missing=f"no frame within {steps['frame'] / 1000:.1f} ms"), steps, model
        if model is None:
            return frame, Findings(), steps, None
        previous = None if self._camera.repeats else self._previous
        self._previous = frame.pixels
        try:
            model, looked = self._models.look(model, self._recipe, frame.pixels, previous)
        except (GudgeonError, ValueError) as error:
            return frame, Findings(model_error=f"engine {model.engine.name}: {error}"), steps, model
        steps |= looked.steps_us
        late_ms = (self._clock.monotonic_ns() - trigger_ns) / 1e6 - self._settings.deadline_ms
        late = max(steps, key=lambda name: steps[name]) if late_ms > 0 else ""
        found = Findings(frame_problem=looked.problem, judgement=looked.judgement, late_step=late)
        return frame, found, steps, model

    def _frame(self, part: Part, trigger_ns: int) -> Frame | None:
        if not self._camera_up and not self._try_camera():
            raise EndpointError("the camera is gone")
        try:
            spent_s = (self._clock.monotonic_ns() - trigger_ns) / 1e9
            timeout_s = min(self._settings.frame_timeout_ms, self._settings.deadline_ms) / 1000.0 - spent_s
            return self._camera.frame(part.seq, max(timeout_s, 0.0))
        except EndpointError as error:
            self._camera_lost(error)
            raise

    def _decision(
        self,
        part: Part,
        inputs: Inputs,
        ruling: Ruling,
        verdict: Verdict,
        model: Model | None,
        frame: Frame | None,
        steps: dict[str, int],
    ) -> Decision:
        return Decision(
            part_seq=part.seq,
            part_epoch=part.epoch,
            result=verdict.result or Result.FAULT,
            score=ruling.score,
            label=ruling.label,
            reason=f"guard {verdict.veto}: {verdict.reason}" if verdict.veto else ruling.reason,
            bundle_digest=model.digest if model else "",
            engine=model.engine.name if model else "",
            variant=model.engine.variant if model else "",
            frame_timestamp_ns=frame.timestamp_ns if frame else None,
            latency_us=0,
            steps_us=steps,
            lot=inputs.lot,
            serial=inputs.serial,
            recipe=inputs.recipe,
        )

    def _answer(self, decision: Decision) -> None:
        score = SCORE_UNKNOWN if decision.score is None else round(decision.score * 1000)
        self._driver.write(list(self._tags.answer(decision.part_seq, int(decision.result), score)))
        now_ns = self._clock.monotonic_ns()
        self._guard.written(now_ns)
        if decision.result is Result.REJECT and self._settings.pulse_ms > 0:
            self._driver.write([(self._tags.reject_coil, True)])
            self._pulse_off_ns = now_ns + self._settings.pulse_ms * 1_000_000

    def _keep(self, decision: Decision, faults: list[Item], trigger_ns: int) -> None:
        timed = replace(decision, latency_us=(self._clock.monotonic_ns() - trigger_ns) // 1000)
        self._record(("decision", "decision", timed.body()), *faults)
        self._recorded = PartTracker(decision.part_epoch, decision.part_seq)
        self._latency_counts[latency.bucket(timed.latency_us)] += 1
        self._latency_sum_us += timed.latency_us

    def _count(self, decision: Decision) -> None:
        self.counts["answered"] += 1
        self.counts[decision.result.name.lower()] += 1

    # ── faults and health ───────────────────────────────────────────────────────────────────────────────────────────

    def _part_faults(self, part: Part) -> list[Item]:
        body = {"part_seq": part.seq, "part_epoch": part.epoch}
        faults: list[Item] = []
        if part.missed:
            self.counts["missed"] += part.missed
            faults.append(("fault", "missed_triggers", {**body, "missed": part.missed}))
        if part.reset:
            faults.append(("fault", "plc_reset", body))
        return faults

    def _findings_faults(self, ruling: Ruling, verdict: Verdict, decision: Decision) -> list[Item]:
        body = {"part_seq": decision.part_seq, "part_epoch": decision.part_epoch}
        faults: list[Item] = []
        if ruling.fault:
            self.counts[ruling.fault] += 1
            faults.append(("fault", ruling.fault, {**body, "reason": ruling.reason}))
        if verdict.veto:
            self.counts["veto"] += 1
            wanted = {"wanted": int(ruling.result), "score": ruling.score}
            faults.append(("fault", "veto", {**body, **wanted, "check": verdict.veto, "reason": verdict.reason}))
        self._condition("frames", ruling.fault.startswith("frame_"))
        self._condition("model", ruling.fault == "no_model")
        return faults

    def _record(self, *items: Item) -> None:
        self._condition("recording", not self._recorder.record(*items))

    def _condition(self, name: str, holds: bool) -> None:
        if holds == (name in self._conditions):
            return
        (self._conditions.add if holds else self._conditions.discard)(name)
        before, self.health = self.health, health.after(self.health, self._conditions)
        if before is not self.health:
            self._heartbeat_due_ns = 0
            body = {"health": self.health.name.lower(), "conditions": sorted(self._conditions)}
            if name == "recording" and holds:
                body["error"] = self._recorder.error
            self._recorder.record(("health", "health", body))

    # ── PLC and camera come and go ──────────────────────────────────────────────────────────────────────────────────

    def _try_plc(self) -> float:
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._plc_retry_ns:
            return min((self._plc_retry_ns - now_ns) / 1e9, 0.1)
        self._driver.connect()
        self._plc_up = True
        self._recover()
        if self._settings.pulse_ms > 0:
            self._driver.write([(self._tags.reject_coil, False)])
        self._plc_backoff.reset()
        self._try_camera()
        self._record(("health", "plc_connected", {"part_seq": self._inputs.part_seq}))
        self._plc_said = False
        return 0.0

    def _plc_lost(self, error: EndpointError) -> float:
        self._driver.close()
        self._plc_up = False
        self._pulse_off_ns = None
        wait_s = self._plc_backoff.next_s()
        self._plc_retry_ns = self._clock.monotonic_ns() + round(wait_s * 1e9)
        if not self._plc_said:
            self._plc_said = True
            self.counts["plc_lost"] += 1
            self._record(("fault", "plc_lost", {"reason": str(error)}))
        return min(wait_s, 0.1)

    def _recover(self) -> None:
        """An answer in the PLC's registers that the outbox does not know becomes an `unrecorded` Event."""
        self._inputs = inputs = self._read_inputs()
        seq, result, score = (_number(s) for s in self._driver.read(self._tags.results))
        answered = seq is not None and result in tuple(Result) and seq > 0
        if answered and seq != self._recorded.last:
            self._recorded, part = self._recorded.see(seq or 0)
            assert part is not None
            standing = inputs.part_seq == seq
            body = {
                "part_seq": part.seq,
                "part_epoch": part.epoch,
                "result": result,
                "score": None if score is None else score / 1000.0,
                "reason": "found in the PLC's result registers; the record was cut off by a crash",
                "lot": inputs.lot if standing else None,
                "serial": inputs.serial if standing else None,
            }
            self._record(("decision", "unrecorded", body))
        elif not answered and self._recorded.last and inputs.part_seq == self._recorded.last:
            body = {"part_seq": self._recorded.last, "part_epoch": self._recorded.epoch}
            self._record(("fault", "answer_unconfirmed", body))
        self._tracker = self._recorded

    def _try_camera(self) -> bool:
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._camera_retry_ns:
            return False
        try:
            self._camera.open()
        except EndpointError as error:
            self._camera_lost(error)
            return False
        self._camera_up, self._camera_said = True, False
        self._camera_backoff.reset()
        self._condition("camera", False)
        return True

    def _camera_lost(self, error: EndpointError) -> None:
        self._camera_up = False
        self._camera_retry_ns = self._clock.monotonic_ns() + round(self._camera_backoff.next_s() * 1e9)
        if not self._camera_said:
            self._camera_said = True
            self._record(("fault", "camera_lost", {"reason": str(error)}))
        self._condition("camera", True)

    # ── between parts ───────────────────────────────────────────────────────────────────────────────────────────────

    def _between_parts(self) -> bool:
        """Do the one most urgent thing that is due; False if there was none."""
        now_ns = self._clock.monotonic_ns()
        if self._pulse_off_ns is not None and now_ns >= self._pulse_off_ns:
            self._pulse_off_ns = None
            self._driver.write([(self._tags.reject_coil, False)])
        elif now_ns >= self._heartbeat_due_ns:
            self._heartbeat_due_ns = now_ns + self._settings.heartbeat_ms * 1_000_000
            self._heartbeat = (self._heartbeat + 1) & 0xFFFF
            values: list[tuple[Tag, Value]] = [
                (self._tags.heartbeat, self._heartbeat),
                (self._tags.health, int(self.health)),
            ]
            self._driver.write(values)
        elif not self._camera_up and now_ns >= self._camera_retry_ns:
            self._try_camera()
        elif self._waiting:
            job, seen = self._waiting.popleft()
            if items := job(seen):
                self._record(*items)
        elif self._look_for_command(now_ns) or self._turn_models(now_ns):
            pass
        elif now_ns >= self._metric_due_ns:
            self._metric_due_ns = now_ns + METRIC_PERIOD_NS
            self._record(("metric", "control", self._metric()))
        else:
            self._camera.idle()
            return False
        return True

    def _turn_models(self, now_ns: int) -> bool:
        if now_ns < self._swap_due_ns:
            return False
        told = self._models.turn(now_ns)
        if told is None:
            self._swap_due_ns = now_ns + SWAP_PERIOD_NS
            return False
        if told:
            self._record(*told)
        return True

    # ── commands ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _look_for_command(self, now_ns: int) -> bool:
        """Carry out the one that waits, if there is any. Its record follows the write: a crash in between leaves it without
        an end, which `link` then tells."""
        request = self._inbox()
        if request is None:
            self._command_due_ns = now_ns + COMMAND_PERIOD_NS
            return False
        model = self._models.of(self._inputs.recipe)
        limits = model.manifest.guard if model else GuardLimits()
        verdict = self._guard.check_write(request, limits, self._inputs.line_state, now_ns)
        if verdict.veto:
            kind = "expired" if verdict.veto == "staleness" else "refused"
            self._record(("command", kind, {**request.body(), "reason": verdict.reason, "check": verdict.veto}))
            return True
        self._guard.commanded(request.name, now_ns)
        self._carry_out(request)
        return True

    def _carry_out(self, request: WriteRequest) -> None:
        try:
            self._driver.write([(self._points[request.name], request.value)])
        except EndpointError as error:
            reason = f"the PLC did not confirm it, so it may have been carried out; it is not tried again: {error}"
            self._record(("command", "unknown", {**request.body(), "reason": reason}))
            raise
        self.counts["commands"] += 1
        self._record(("command", "done", {**request.body(), "reason": ""}))

    def _refuse_command(self) -> None:
        """Without a PLC nothing can be carried out; it does not wait for one."""
        request = self._inbox()
        if request is not None:
            self._record(
                ("command", "refused", {**request.body(), "reason": "the PLC is not connected", "check": "plc"})
            )

    def _metric(self) -> dict[str, object]:
        return {
            **self.counts,
            "health": self.health.name.lower(),
            "line_state": self._inputs.line_state,
            "recipe": self._inputs.recipe,
            "outbox_depth": self._recorder.depth(),
            "records_waiting": self._recorder.waiting,
            "records_lost": self._recorder.lost,
            "latency_counts": list(self._latency_counts),
            "latency_sum_us": self._latency_sum_us,
        }

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _read_inputs(self) -> Inputs:
        values = {s.tag: _number(s) for s in self._driver.read(self._tags.inputs)}
        state, seq = values.get("line_state"), values.get("part_seq")
        if seq is None:
            raise EndpointError("the PLC refuses to give part_seq; check plc.map in the device's configuration")
        return Inputs(state or 0, seq, values.get("recipe"), values.get("lot"), values.get("serial"))


def _number(sample: Sample) -> int | None:
    return int(sample.value) if sample.quality is Quality.GOOD and sample.value is not None else None
