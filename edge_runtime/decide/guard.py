"""Guard: the deterministic check between a decision and a write. Pure, never learned, and the only way to an actuator.

A veto never lets a `pass` or `reject` through: it puts the safe answer `fault` in its place (the PLC diverts the part), or
forbids the write altogether where the device itself is what runs away.

    check        what it refuses                                              what is written instead
    range        a result or a score outside of the handshake's values        fault
    interlock    an answer while the line is in no state that inspects        fault
    staleness    an answer older than `max_answer_age_ms`                     fault
    rate         more than `max_answers_per_s` answers in the last second     nothing

A command from outside passes the Guard as well; what it refuses is never written.

    check        what it refuses
    allow        a point that is not in `[commands] allow`
    range        a value that the point's limits or type do not allow
    staleness    a command whose time is up (told as `expired`)
    interlock    a write while the line inspects parts, or tells no state, to a point that is not `while_running`
    rate         more than `max_per_min` commands to the point in the last minute
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_runtime.decide.decision import Result
from edge_runtime.decide.points import Point, WriteRequest
from edge_runtime.wire.manifest import GuardLimits

STATE_NOT_REPORTED = 0
SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS


@dataclass(frozen=True)
class Answer:
    """What is about to be written. `score`: 0–1, None where no model ran. `trigger_ns`: monotonic time of the trigger."""

    seq: int
    result: Result
    score: float | None
    trigger_ns: int


@dataclass(frozen=True)
class Verdict:
    """`result` is what may be written, None for nothing; `veto` names the check that refused, "" where none did."""

    result: Result | None
    veto: str = ""
    reason: str = ""


def check(answer: Answer, limits: GuardLimits, line_state: int, recent_ns: Sequence[int], now_ns: int) -> Verdict:
    """`line_state`: the PLC's PackML code, 0 where it reports none (then there is no interlock). `recent_ns`: monotonic
    times of the last answers written."""
    last_second = sum(1 for t in recent_ns if now_ns - t < SECOND_NS)
    if last_second >= limits.max_answers_per_s:
        return Verdict(None, "rate", f"{last_second} answers in one second, allowed are {limits.max_answers_per_s:g}")
    if not 0 < answer.seq <= 0xFFFF or not (answer.score is None or 0.0 <= answer.score <= 1.0):
        return Verdict(
            Result.FAULT, "range", f"part {answer.seq} with score {answer.score} is outside of the handshake"
        )
    if line_state not in (STATE_NOT_REPORTED, *limits.run_states):
        return Verdict(
            Result.FAULT, "interlock", f"line state {line_state}, answers are allowed in {limits.run_states}"
        )
    age_ms = (now_ns - answer.trigger_ns) / 1e6
    if age_ms > limits.max_answer_age_ms:
        return Verdict(Result.FAULT, "staleness", f"{age_ms:.0f} ms old, allowed are {limits.max_answer_age_ms} ms")
    return Verdict(answer.result)


@dataclass(frozen=True)
class Pass:
    """May this command be carried out? `veto` names the check that refused, "" where none did."""

    veto: str = ""
    reason: str = ""


def check_write(
    request: WriteRequest,
    points: Mapping[str, Point],
    limits: GuardLimits,
    line_state: int,
    recent_ns: Sequence[int],
    now_ns: int,
) -> Pass:
    """`points`: those that may be written. `recent_ns`: monotonic times of the last commands to this point."""
    point = points.get(request.name)
    if point is None:
        return Pass("allow", f"{request.name} is not in this device's commands.allow")
    if problem := point.problem(request.value):
        return Pass("range", problem)
    if now_ns >= request.until_mono_ns:
        return Pass("staleness", f"its time was up {(now_ns - request.until_mono_ns) / 1e6:.0f} ms ago")
    if not point.while_running and line_state in (STATE_NOT_REPORTED, *limits.run_states):
        state = f"is in state {line_state}" if line_state else "tells no state"
        return Pass("interlock", f"the line {state}; {request.name} may be written only while no parts are inspected")
    last_minute = sum(1 for t in recent_ns if now_ns - t < MINUTE_NS)
    if last_minute >= point.max_per_min:
        return Pass(
            "rate", f"{last_minute} commands to {request.name} in one minute, allowed are {point.max_per_min:g}"
        )
    return Pass()


class Guard:
    """`check` and `check_write` with the memory of what was written. `points`: what commands may write."""

    def __init__(self, points: Mapping[str, Point] | None = None) -> None:
        self._written_ns: deque[int] = deque(maxlen=1024)
        self._points = dict(points or {})
        self._commands_ns: dict[str, deque[int]] = {name: deque(maxlen=1024) for name in self._points}

    def check(self, answer: Answer, limits: GuardLimits, line_state: int, now_ns: int) -> Verdict:
        return check(answer, limits, line_state, self._recent(now_ns), now_ns)

    def written(self, now_ns: int) -> None:
        self._written_ns.append(now_ns)

    def check_write(self, request: WriteRequest, limits: GuardLimits, line_state: int, now_ns: int) -> Pass:
        recent = self._commands_ns.get(request.name, deque())
        return check_write(request, self._points, limits, line_state, recent, now_ns)

    def commanded(self, name: str, now_ns: int) -> None:
        """A command to this point goes out now, whatever comes of it."""
        self._commands_ns[name].append(now_ns)

    def _recent(self, now_ns: int) -> deque[int]:
        while self._written_ns and now_ns - self._written_ns[0] >= SECOND_NS:
            self._written_ns.popleft()
        return self._written_ns
