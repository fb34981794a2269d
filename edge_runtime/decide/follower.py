"""Follower: one model on one asset, row by row of its grid. A score is there where every value in its window is, no tag is
stale, and the machine ran all the time; else the row has a stated quality and reason, and no number."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_runtime.decide.asset_config import DriftSettings
from edge_runtime.decide.drift import BlockTest, Drift
from edge_runtime.field.tag import Quality, Sample
from edge_runtime.field.window import Aligner, Refused
from edge_runtime.infer.series import Anomaly, Answer, Remaining, SeriesModel

REASON_CHARS = 500


@dataclass(frozen=True)
class Scored:
    """One row. `anomaly` or `remaining` by the kind of the model, None where the quality is not good; `test` where a
    block of drift is full."""

    mono_ns: int
    quality: Quality
    reason: str
    anomaly: Anomaly | None = None
    remaining: Remaining | None = None
    test: BlockTest | None = None
    took_us: int = 0


class Follower:
    """`add` samples, `advance` to now for the rows scored since. Raises `errors.BundleError` where the engine fails."""

    def __init__(self, model: SeriesModel, drift: DriftSettings) -> None:
        self.model = model
        view, calibration = model.manifest.view, model.manifest.calibration
        self._aligner = Aligner(view)
        self._newest_ns: int | None = None
        self._ran_rows = 0  # without a pause
        stride = max(view.window_rows, calibration.smooth_rows if calibration else 1)
        names = [name for name, _ in view.columns()]
        self._drift = Drift(model.reference, names, drift, stride) if model.reference else None

    @property
    def refused(self) -> Refused:
        return self._aligner.refused

    @property
    def tags(self) -> tuple[str, ...]:
        return self.model.manifest.view.tag_names

    def add(self, sample: Sample, now_ns: int) -> None:
        if sample.tag in self.model.manifest.view.tag_names:
            self._aligner.add(sample, now_ns)

    def stale(self, now_ns: int) -> tuple[str, ...]:
        return self._aligner.stale(now_ns)

    def advance(self, now_ns: int, runs: bool | None = True) -> list[Scored]:
        """`runs`: does the machine run; None: it is not known."""
        view, grid_ns = self.model.manifest.view, self._aligner.grid_ns
        newest_ns = now_ns // grid_ns * grid_ns
        first_ns = newest_ns if self._newest_ns is None else self._newest_ns + grid_ns
        first_ns = max(first_ns, newest_ns - (view.rows - 1) * grid_ns)  # after a long pause
        scored = []
        for row_ns in range(first_ns, newest_ns + 1, grid_ns):
            rows = self._aligner.advance(row_ns)
            self._newest_ns = row_ns
            self._ran_rows = min(self._ran_rows + len(rows), view.rows) if runs else 0
            if row_ns // grid_ns % view.step_rows == 0 and rows:
                scored.append(self._score(row_ns, rows[-1].stale))
        return scored

    def _pause(self) -> str:
        if self._ran_rows >= self.model.manifest.view.least_rows:
            return ""
        if not self._ran_rows:
            return "the machine does not run, as far as is known"
        return f"{self._ran_rows} of {self.model.manifest.view.least_rows} rows so far"

    def _score(self, row_ns: int, stale: tuple[str, ...]) -> Scored:
        model = self.model
        pause = "" if stale else self._pause()
        nothing = Answer(None, None, Quality.UNCERTAIN, pause, {})
        answer = nothing if pause else model.answer(self._aligner.window(), stale)
        scored = Scored(row_ns, answer.quality, answer.reason[:REASON_CHARS], took_us=sum(answer.steps_us.values()))
        if model.manifest.kind == "anomaly":
            scored = replace(scored, anomaly=model.judge(answer))
        else:
            scored = replace(scored, remaining=model.remaining(answer))
        if self._drift is None or answer.inputs is None:
            return scored
        score = scored.anomaly.score if scored.anomaly else None
        return replace(scored, test=self._drift.add(answer.inputs.tolist(), score))
