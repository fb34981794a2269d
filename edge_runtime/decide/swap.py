"""Swap: another model while the line runs. It is loaded and warmed beside the loop, exchanged between two parts, and on trial
until the updater keeps it.

- The model before stays loaded through the trial. What is unfit (`decide.trial`) is exchanged back before the next part, by this
  process alone; where the model on trial gave no usable answer, the model before answers the same part.
- A hang or a crash in native code takes this process along: the supervisor ends it (`engine_watch`), and the spare, ready with
  the model before, answers. So there is no trial without a spare.
- What is decided goes to whoever watches, frame by frame (`frames`); it never waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from edge_runtime.clock import Clock
from edge_runtime.decide.decision import Result
from edge_runtime.decide.engine_watch import EngineWatch
from edge_runtime.decide.errand import Errand
from edge_runtime.decide.frames import FrameBox
from edge_runtime.decide.models import Models, Pixels, Seen
from edge_runtime.decide.swap_socket import Request, SwapSocket
from edge_runtime.decide.trial import Pace, Trial
from edge_runtime.decide.trial_files import TrialFiles
from edge_runtime.decide.trial_settings import TrialSection
from edge_runtime.errors import BundleError, ResourceError
from edge_runtime.infer.model import Looked, Model
from edge_runtime.machine import step
from edge_runtime.outbox.recorder import Item


class SwapState(Enum):
    IDLE = "idle"
    LOADING = "loading"
    TRIAL = "trial"


class SwapInput(Enum):
    ASK = "ask"
    FAILED = "failed"
    ON_TRIAL = "on trial"
    FOR_GOOD = "for good"
    KEEP = "keep"
    BACK = "back"


TABLE: Mapping[tuple[SwapState, SwapInput], SwapState] = {
    (SwapState.IDLE, SwapInput.ASK): SwapState.LOADING,
    (SwapState.LOADING, SwapInput.FAILED): SwapState.IDLE,
    (SwapState.LOADING, SwapInput.ON_TRIAL): SwapState.TRIAL,
    (SwapState.LOADING, SwapInput.FOR_GOOD): SwapState.IDLE,
    (SwapState.TRIAL, SwapInput.KEEP): SwapState.IDLE,
    (SwapState.TRIAL, SwapInput.BACK): SwapState.IDLE,
}


#: `blamed`: was it the model's doing?
NOTHING_ENDED: Mapping[str, Any] = {"digest": "", "reason": "", "blamed": False}


class Wanted(NamedTuple):
    slot_set: str
    path: Path
    digest: str
    trial: bool


class Running(NamedTuple):
    """`before`: what ran in its place."""

    wanted: Wanted
    model: Model
    before: Models
    trial: Trial
    since_ns: int


class Swap:
    """`Judges` of the loop. `load` reads, verifies and warms a bundle. `ended`: how the last trial ended, "" reasons for well."""

    def __init__(
        self,
        models: Models,
        socket: SwapSocket,
        load: Callable[[Path], Model],
        watch: EngineWatch,
        files: TrialFiles,
        section: TrialSection,
        deadline_ms: float,
        clock: Clock,
        lost: str = "",
    ) -> None:
        self.models, self._socket, self._load, self._watch = models, socket, load, watch
        self._files, self._section, self._deadline_ms, self._clock = files, section, deadline_ms, clock
        self._state = SwapState.IDLE
        self._errand: Errand[Model] | None = None
        self._tidying: Errand[None] | None = None
        self._wanted: Wanted | None = None
        self._running: Running | None = None
        self._paces: dict[str, Pace] = {}
        self._frames: tuple[str, FrameBox] | None = None
        self._news: list[Item] = []
        self._ended = NOTHING_ENDED
        self._unneeded: list[Model | None] = []
        watch.limit(0)
        if left := files.left_over():
            reason = f"control did not come through the trial: {lost or 'it ended'}"
            self._end({name: str(left.get(name, "")) for name in ("slot_set", "digest", "before")}, reason)

    # ── Judges ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def of(self, recipe: int | None) -> Model | None:
        return self.models.of(recipe)

    @property
    def named(self) -> Mapping[str, Model]:
        return self.models.named

    def look(self, model: Model, recipe: int | None, pixels: Pixels, previous: Pixels | None) -> tuple[Model, Looked]:
        running = self._running
        if running is None or model is not running.model:
            looked = model.look(pixels, previous)
            if running is None:
                self._pace(model.digest).add(looked)
            return model, looked
        answer: Looked | None = None
        try:
            with self._watch:
                answer = model.look(pixels, previous)
            reason = running.trial.looked(answer)
        except Exception as error:  # whatever a model on trial does, the model before can answer
            reason = f"crashed: {type(error).__name__}: {one_line(error)}"
        if reason:
            self._back(reason)
        if answer is not None and (answer.judgement is None or answer.judgement.finite):
            return model, answer
        before = self.models.of(recipe)
        if before is None:
            raise BundleError(f"no model is left for this part: {reason}")
        return before, before.look(pixels, previous)

    def turn(self, now_ns: int) -> list[Item] | None:
        if self._news:
            news, self._news = self._news, []
            return news
        if self._errand is not None and self._errand.done:
            self._put_in(self._errand, now_ns)
            return []
        if self._unneeded and not self._tidies:
            self._tidy(self._unneeded.pop())
            return []
        return self._serve(now_ns)

    def seen(self, seen: Seen) -> list[Item]:
        """A part that was judged: hand it to whoever watches."""
        decision, running = seen.decision, self._running
        if running is not None and decision.bundle_digest == running.model.digest:
            vetoed = decision.result is Result.FAULT and decision.reason.startswith("guard ")
            if reason := running.trial.answered(vetoed):
                self._back(reason)
        if self._frames is not None:
            to, box = self._frames
            header = box.put(seen)
            if header is not None and not self._socket.send(to, header):
                self._frames = None
        return []

    def close(self) -> None:
        """An orderly end is no failure of what is on trial."""
        self._watch.limit(0)
        self._files.end()
        self._socket.close()

    # ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _serve(self, now_ns: int) -> list[Item] | None:
        received = self._socket.receive()
        if received is None:
            return None
        request, sender = received
        if request.get("do") == "taken":
            if self._frames is not None and sender == self._frames[0]:
                self._frames[1].taken()
            return []
        try:
            reason = self._do(request, sender)
        except (KeyError, TypeError, ValueError, OSError) as error:
            reason = f"not a request that control can carry out: {type(error).__name__}: {error}"
        if sender:
            self._socket.send(sender, {"reason": reason, **self._status(now_ns)})
        return []

    def _do(self, request: Request, sender: str) -> str:
        """Why it is not done, "" where it is (or has been)."""
        what = request.get("do")
        if what == "swap":
            wanted = Wanted(request["slot_set"], Path(request["path"]), request["digest"], bool(request["trial"]))
            return self._begin(wanted)
        if what == "revert":
            return self._asked_back(request["digest"], str(request["reason"]))
        if what == "keep":
            return self._keep(request["digest"])
        if what == "forget":
            if self._ended["digest"] == request["digest"]:
                self._ended = NOTHING_ENDED
            return ""
        if what == "clear":
            return self._clear(request["slot_set"])
        if what == "watch":
            path = request["path"]
            self._frames = (sender, FrameBox(Path(path), int(request["size"]))) if path else None
            return ""
        return "" if what == "status" else f"unknown request {str(what)[:40]!r}"

    def _begin(self, wanted: Wanted) -> str:
        model = self.models.named.get(wanted.slot_set)
        if model is not None and model.digest == wanted.digest:
            return ""
        if self._wanted == wanted and self._state is SwapState.LOADING:
            return ""
        if self._state is not SwapState.IDLE:
            return f"another model is {self._state.value} now"
        if self._unneeded or self._tidies:
            return "the last trial is being put away"
        if not fits(wanted.slot_set):
            return f"slot set {wanted.slot_set!r} is none of the line: expected default or recipe-<code>"
        self._state = step(TABLE, self._state, SwapInput.ASK)
        self._wanted, self._ended = wanted, NOTHING_ENDED
        before = model.digest if model else ""
        self._errand = Errand(lambda: self._prepare(wanted, before))
        return ""

    def _prepare(self, wanted: Wanted, before: str) -> Model:
        """In the errand's thread."""
        if wanted.trial:
            self._files.ask_for_spare()
        model = self._load(wanted.path)
        if model.digest != wanted.digest:
            raise BundleError(f"{wanted.path} holds {model.digest[:12]}, expected {wanted.digest[:12]}")
        if wanted.trial:
            self._files.begin({"slot_set": wanted.slot_set, "digest": wanted.digest, "before": before})
        return model

    def _asked_back(self, digest: str, reason: str) -> str:
        if self._running is None or self._running.model.digest != digest:
            return "it is not on trial"
        self._back(f"asked: {reason[:400]}")
        return ""

    def _keep(self, digest: str) -> str:
        running = self._running
        if running is None or running.model.digest != digest:
            return "" if digest in (m.digest for m in self.models.named.values()) else "it does not run"
        self._state = step(TABLE, self._state, SwapInput.KEEP)
        body = {"slot_set": running.wanted.slot_set, "bundle_digest": digest, "parts": running.trial.parts}
        self._news.append(("health", "model_kept", body))
        self._leave(running.before.named.get(running.wanted.slot_set))
        return ""

    def _clear(self, slot_set: str) -> str:
        if self._state is not SwapState.IDLE:
            return f"another model is {self._state.value} now"
        if slot_set in self.models.named:
            self.models = self.models.having(slot_set, None)
            self._news.append(("health", "model_cleared", {"slot_set": slot_set}))
        return ""

    # ── exchange ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _put_in(self, errand: Errand[Model], now_ns: int) -> None:
        wanted, model, self._errand = self._wanted, errand.result, None
        assert wanted is not None
        if model is None:
            self._state = step(TABLE, self._state, SwapInput.FAILED)
            left = {"slot_set": wanted.slot_set, "digest": wanted.digest, "before": ""}
            blamed = not isinstance(errand.error, ResourceError)
            self._end(left, f"not loaded: {one_line(errand.error)}", blamed=blamed)
            self._unneeded.append(None)
            return
        before, old = self.models, self.models.named.get(wanted.slot_set)
        self.models = self.models.having(wanted.slot_set, model)
        body = {"slot_set": wanted.slot_set, "bundle_digest": model.digest, "before": old.digest if old else ""}
        body |= {"engine": model.engine.name, "variant": model.engine.variant}
        self._news.append(("health", "model_swapped", {**body, "trial": wanted.trial}))
        if not wanted.trial:
            self._state = step(TABLE, self._state, SwapInput.FOR_GOOD)
            self._unneeded.append(old)
            return
        self._state = step(TABLE, self._state, SwapInput.ON_TRIAL)
        usual_us = self._pace(old.digest).usual_us if old else None
        trial = Trial(self._section.slow_ratio, self._deadline_ms, usual_us)
        self._running = Running(wanted, model, before, trial, now_ns)
        self._watch.limit(self._section.hang_ms)

    def _back(self, reason: str) -> None:
        running = self._running
        if running is None:
            return
        self._state = step(TABLE, self._state, SwapInput.BACK)
        self.models = running.before
        before = running.before.named.get(running.wanted.slot_set)
        self._end(
            {
                "slot_set": running.wanted.slot_set,
                "digest": running.model.digest,
                "before": before.digest if before else "",
            },
            reason,
            running.trial.parts,
        )
        self._leave(running.model)

    def _leave(self, model: Model | None) -> None:
        """The trial is over; `model` is needed no more."""
        self._running = None
        self._watch.limit(0)
        self._unneeded.append(model)

    @property
    def _tidies(self) -> bool:
        return self._tidying is not None and not self._tidying.done

    def _tidy(self, model: Model | None) -> None:
        def tidy() -> None:
            self._files.end()
            if model is not None:
                model.engine.close()

        self._tidying = Errand(tidy)

    def _end(self, what: Mapping[str, str], reason: str, parts: int = 0, blamed: bool = True) -> None:
        self._ended = {"digest": what["digest"], "reason": reason, "blamed": blamed}
        body = {"slot_set": what["slot_set"], "bundle_digest": what["digest"], "to": what["before"]}
        kind = "model_rolled_back" if blamed else "swap_failed"
        self._news.append(("fault", kind, {**body, "reason": reason, "parts": parts}))

    def _pace(self, digest: str) -> Pace:
        return self._paces.setdefault(digest, Pace())

    def _status(self, now_ns: int) -> dict[str, Any]:
        running = self._running
        status: dict[str, Any] = {
            "state": self._state.value,
            "running": {slot_set: model.digest for slot_set, model in self.models.named.items()},
            "ended": self._ended,
        }
        if self._frames is not None:
            status |= {"frames_given": self._frames[1].given, "frames_left_out": self._frames[1].left_out}
        if running is not None:
            status |= {"digest": running.model.digest, "parts": running.trial.parts}
            status |= {"trial_s": (now_ns - running.since_ns) / 1e9, "p99_us": running.trial.pace.p99_us}
        return status


def one_line(error: Exception | None) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__


def fits(slot_set: str) -> bool:
    """Is this a slot set of the line that judges parts?"""
    return slot_set == "default" or (slot_set.startswith("recipe-") and slot_set[7:].isdecimal())
