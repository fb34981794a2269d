"""Guard: the deterministic check between a decision and a write. Pure, never learned, and the only way to an actuator.

A veto never lets a `pass` or `reject` through: it puts the safe answer `fault` in its place (the PLC diverts the part), or
forbids the write altogether where the device itself is what runs away.

    check        what it refuses                                              what is written instead
    range        a result or a score outside of the handshake's values        fault
    interlock    an answer while the line is in no state that inspects        fault
    staleness    an answer older than `max_answer_age_ms`                     fault
    rate         more than `max_answers_per_s` answers in the last second     nothing
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.decide.decision import Result
from edge_runtime.wire.manifest import GuardLimits

STATE_NOT_REPORTED = 0
SECOND_NS = 1_000_000_000


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


class Guard:
    """`check` with the memory of what was written."""

    def __init__(self) -> None:
        self._written_ns: deque[int] = deque(maxlen=1024)

    def check(self, answer: Answer, limits: GuardLimits, line_state: int, now_ns: int) -> Verdict:
        return check(answer, limits, line_state, self._recent(now_ns), now_ns)

    def written(self, now_ns: int) -> None:
        self._written_ns.append(now_ns)

    def _recent(self, now_ns: int) -> deque[int]:
        while self._written_ns and now_ns - self._written_ns[0] >= SECOND_NS:
            self._written_ns.popleft()
        return self._written_ns
