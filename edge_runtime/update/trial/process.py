"""The process that tries a candidate: started by `line_gate`, with a limit of memory, of the lowest priority as soon as
it has loaded, and ended when it says nothing for too long. Whatever a candidate does here, `control` does not feel it.

    python -m edge_runtime.update.trial.process ORDER        ORDER: an `Order` as JSON

It says what it does, one JSON object a line:

    {"phase": "loading" | "golden" | "pace" | "live", "measured": {…}}       at least every second while it is live
    {"phase": …, "ok": true | false, "reason": …, "measured": {…}}           its verdict; then it goes on with live frames

On live frames it compares what `control` decided with what the other of the two models decides: the candidate while the running
model answers, and the model before once the candidate does. Where these do not agree, it asks `control` back by itself.
"""

from __future__ import annotations

import json
import os
import resource
import select as ready
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.datagrams import bound
from edge_runtime.decide.decision import Result
from edge_runtime.decide.frames import FramePlace
from edge_runtime.decide.swap_socket import LIMIT_BYTES, SOCKET_PATH, decode
from edge_runtime.errors import GudgeonError
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer import select
from edge_runtime.infer.model import Looked, Model, load_model
from edge_runtime.update.trial import pace
from edge_runtime.update.trial.agreement import Agreement
from edge_runtime.update.trial.judge import NOT_ITS_DOING, Order

PLACE_BYTES = 16 * 1024 * 1024
TOLD_EVERY_S = 1.0
WATCH_AGAIN_S = 2.0


def say(phase: str, measured: Mapping[str, float] | None = None, **more: Any) -> None:
    print(json.dumps({"phase": phase, "measured": dict(measured or {}), **more}), flush=True)


class UnfitError(Exception):
    """The candidate is unfit; the text says why."""


def bound_to(memory_mib: int) -> None:
    """No more memory than that, and no core file."""
    limit = memory_mib * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def give_way() -> None:
    """From now on every other process goes first. Not before the last file is read or written: on a busy board the file system's
    journal would wait for us, and `control`, which commits a Decision, for the journal."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (OSError, AttributeError):
        os.nice(19)


def try_offline(order: Order) -> tuple[Model, Model | None, dict[str, float]]:
    """Candidate, running model, and what was measured; UnfitError where the candidate is unfit."""
    cache = Path(order.state_dir) / "engines.json"
    running = load_model(Path(order.running), cache, order.engine) if order.running else None
    say("loading")
    try:
        bundle = bundles.load(Path(order.candidate))
        candidate = load_model(Path(order.candidate), cache, order.engine)
        say("golden")
        variant = next(v for v in select.candidates(bundle, order.engine) if v.name == candidate.engine.variant)
        if problem := select.check_golden(bundle, variant, candidate.engine, bundle.golden_inputs()):
            raise UnfitError(f"golden vectors: {problem}")
        give_way()
        if not order.offline:
            return candidate, running, {}
        say("pace")
        paces, problem = paced(order, candidate, running, bundle.golden.frames)
    except UnfitError:
        raise
    except Exception as error:  # whatever a candidate does
        raise UnfitError(f"not fit to run: {type(error).__name__}: {error}") from error
    if problem:
        raise UnfitError(problem)
    return candidate, running, paces.measured


def paced(order: Order, candidate: Model, running: Model | None, frames: Any) -> tuple[pace.Paces, str]:
    """What was measured, and why it is too slow; "" where one of two measurements finds that it is not."""
    for _ in range(2):
        paces = pace.measure(talking(candidate.look), running.look if running else None, frames)
        problem = pace.problem(paces, order.slow_ratio, order.deadline_ms, order.deadline_share)
        if not problem:
            break
    return paces, problem


def talking(look: pace.Look) -> pace.Look:
    """The same, and every second a word that it goes on."""
    told_s = time.monotonic()

    def looking(frame: Any) -> object:
        nonlocal told_s
        if time.monotonic() - told_s >= TOLD_EVERY_S:
            told_s = time.monotonic()
            say("pace")
        return look(frame)

    return looking


class Live:
    """Frames from `control`, each judged by the model that did not answer it."""

    def __init__(self, order: Order, candidate: Model, running: Model, measured: Mapping[str, float]) -> None:
        self._order, self._candidate, self._running, self._measured = order, candidate, running, dict(measured)
        run = Path(order.state_dir) / "run"
        self._control = str(Path(order.state_dir) / SOCKET_PATH)
        self._socket = bound(run / "judge.sock")
        self._socket.setblocking(True)  # `control` is to hear that a frame was taken
        self._place = FramePlace(PLACE_BYTES)
        asked = candidate.manifest.trial.min_agreement
        least = order.min_agreement if asked < 0 else asked
        self._before = Agreement(least, order.parts, order.most_parts, min(REFUSE_FROM, order.parts))
        self._after = Agreement(least, order.parts, order.most_parts)
        self._verdict: bool | None = None
        self._watched_s = self._told_s = -1e9
        self._asked_back = False

    def run(self) -> None:
        """Until the parent closes our standard input."""
        while True:
            self._watch()
            readable, _, _ = ready.select([self._socket, sys.stdin], [], [], TOLD_EVERY_S)
            if sys.stdin in readable and not os.read(0, 4096):
                return
            if self._socket in readable:
                self._take()
            self._tell()

    def _watch(self) -> None:
        """Ask for frames, again and again: `control` may have been started anew."""
        now_s = time.monotonic()
        if now_s - self._watched_s < WATCH_AGAIN_S:
            return
        self._watched_s = now_s
        self._send({"do": "watch", "path": str(self._place.path), "size": self._place.size_bytes})

    def _send(self, request: Mapping[str, Any]) -> None:
        try:
            self._socket.sendto(json.dumps(request).encode(), self._control)
        except OSError:
            pass  # control is not there; it is asked again

    def _take(self) -> None:
        header = decode(self._socket.recv(LIMIT_BYTES))
        if "part_seq" not in header:
            return  # an answer to what was asked
        self._watched_s = time.monotonic()
        try:
            pixels = self._place.take(header)
        finally:
            self._send({"do": "taken"})
        if header["result"] == Result.FAULT or header["score"] is None:
            return  # no model has judged it
        if header["digest"] == self._running.digest:
            looked = self._look(self._candidate, pixels)
            self._before.add(header["result"], header["score"], *outcome(looked))
        elif header["digest"] == self._candidate.digest:
            looked = self._look(self._running, pixels)
            self._after.add(header["result"], header["score"], *outcome(looked))
            self._collapse()

    def _look(self, model: Model, pixels: Any) -> Looked:
        try:
            looked = model.look(pixels)
        except Exception as error:  # whatever a candidate does
            if model is self._candidate:
                raise UnfitError(f"it failed on a live frame: {type(error).__name__}: {error}") from error
            raise
        if model is self._candidate and looked.judgement is not None and not looked.judgement.finite:
            raise UnfitError("it gave a value that is not finite on a live frame")
        return looked

    def _collapse(self) -> None:
        if self._after.verdict is False and not self._asked_back:
            self._asked_back = True
            reason = f"disagrees: {self._after}"
            self._send({"do": "revert", "digest": self._candidate.digest, "reason": reason})

    def _tell(self) -> None:
        now_s = time.monotonic()
        verdict = self._before.verdict
        if verdict is not None and self._verdict is None:
            self._verdict = verdict
            reason = "" if verdict else f"it decides otherwise than what runs: {self._before}"
            say("live", self._all(), ok=verdict, reason=reason)
        elif now_s - self._told_s >= TOLD_EVERY_S:
            self._told_s = now_s
            say("live", self._all())

    def _all(self) -> dict[str, float]:
        after = {f"trial_{name}": value for name, value in self._after.measured.items() if name in AFTER}
        settled = {"trial_settled": float(self._after.verdict is True)}
        return {**self._measured, **self._before.measured, **after, **settled}


#: before a candidate answers it costs nothing to look at a few parts more; afterwards it is taken back at once
REFUSE_FROM = 20
AFTER = ("parts", "agreed", "agreement")


def outcome(looked: Looked) -> tuple[int, float | None]:
    """What `control` would answer and tell for it."""
    return (looked.judgement.result, looked.judgement.score) if looked.judgement else (int(Result.REVIEW), None)


def run(order: Order) -> None:
    say("loading")
    try:
        candidate, running, measured = try_offline(order)
        if running is None:
            say("live", measured, ok=True, reason="")  # nothing runs that it could be compared with
            sys.stdin.read()
            return
        say("live", measured)
        Live(order, candidate, running, measured).run()
    except UnfitError as refusal:
        say("refused", ok=False, reason=str(refusal)[:500])
        sys.stdin.read()


def main(argv: list[str]) -> int:
    order = Order(**json.loads(argv[0]))
    bound_to(order.memory_mib)
    try:
        run(order)
    except GudgeonError as error:  # of the running model, of this device: nothing that the candidate has done
        print(error, file=sys.stderr)
        return NOT_ITS_DOING
    return 0


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main(sys.argv[1:]))
