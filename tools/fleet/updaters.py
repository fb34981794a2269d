"""Emulated devices that take updates: each a real updater (trust, downloads, store, slot records, mTLS) in a thread of its own;
what is emulated is the line, by a folder of frames.

    python -m tools.fleet.updaters --frames DIR DEVICE_TOML …

Two folders below DIR: `day`, seen while a candidate is checked, and `evening`, seen when it is on trial. The health gate is made
of the product's own parts: golden vectors, time against the running model, agreement on frames, finite values. One device
measures at a time, so that they do not measure one another.
"""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from edge_runtime import log
from edge_runtime.child import stop_event
from edge_runtime.config import DeviceConfig, load_device
from edge_runtime.errors import BundleError, GudgeonError
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer import select
from edge_runtime.infer.model import Model, load_model
from edge_runtime.update import lock, slots
from edge_runtime.update.gate import Candidate, Gate, Verdict
from edge_runtime.update.process import make_updater
from edge_runtime.update.trial import pace
from edge_runtime.update.trial.agreement import Agreement
from edge_runtime.update.trial.process import outcome

PACE_RUNS = 20
LOOK_S = 0.5
RETRY_S = 5.0
SLOT_SET = "default"
MEASURING = threading.Lock()
Frame = NDArray[np.uint8]


def frames_of(folder: Path) -> list[Frame]:
    from PIL import Image

    files = sorted(folder.glob("*.png"))
    if not files:
        raise BundleError(f"{folder}: no pictures; expected *.png")
    return [np.asarray(Image.open(file).convert("L")) for file in files]


class FrameGate:
    """`day`, `evening`: what this device's camera sees, again and again."""

    def __init__(self, device: DeviceConfig, day: Iterator[Frame], evening: Iterator[Frame]) -> None:
        self._state_dir, self._engine, self._section = device.device.state_dir, device.bundle.engine, device.trial
        self._deadline_ms = device.control.deadline_ms
        self._day, self._evening = day, evening
        self._candidate: Model | None = None
        self.runs = ""

    def check(self, candidate: Candidate) -> Verdict:
        with MEASURING:
            return self._check(candidate)

    def _check(self, candidate: Candidate) -> Verdict:
        try:
            running, model = self._confirmed(), self._load(candidate.path)
            bundle = bundles.load(candidate.path)
            variant = next(v for v in select.candidates(bundle, self._engine) if v.name == model.engine.variant)
            if problem := select.check_golden(bundle, variant, model.engine, bundle.golden_inputs()):
                return Verdict(False, f"golden vectors: {problem}")
            if running is None:
                return Verdict(True)
            frames = list(islice(self._day, self._section.parts))
            paces = pace.measure(model.look, running.look, frames, PACE_RUNS)
            section = self._section
            if problem := pace.problem(paces, section.slow_ratio, self._deadline_ms, section.deadline_share):
                return Verdict(False, problem, paces.measured)
            agreement, broken = self._agreement(model, running, frames)
        except GudgeonError as error:
            return Verdict(False, str(error))
        if broken or agreement.verdict is not True:
            reason = broken or f"it decides otherwise than what runs: {agreement}"
            return Verdict(False, reason, {**paces.measured, **agreement.measured})
        return Verdict(True, "", {**paces.measured, **agreement.measured})

    def begin(self, candidate: Candidate) -> None:
        self._candidate, self.runs = self._load(candidate.path), candidate.digest

    def trial(self, candidate: Candidate) -> Verdict | None:
        with MEASURING:
            return self._trial(self._candidate or self._load(candidate.path))

    def _trial(self, model: Model) -> Verdict:
        for number, frame in enumerate(islice(self._evening, self._section.parts), 1):
            looked = model.look(frame)
            if looked.judgement is not None and not looked.judgement.finite:
                return Verdict(False, "it gave a value that is not finite", {"trial_parts": float(number)})
        return Verdict(True, "", {"trial_parts": float(self._section.parts)})

    def revert(self, to: Candidate | None) -> None:
        self._candidate, self.runs = None, to.digest if to else ""

    def _confirmed(self) -> Model | None:
        path = slots.active(self._state_dir, SLOT_SET)
        return self._load(path) if path else None

    def _load(self, path: Path) -> Model:
        return load_model(path, self._state_dir / "engines.json", self._engine)

    def _agreement(self, model: Model, running: Model, frames: Sequence[Frame]) -> tuple[Agreement, str]:
        section, asked = self._section, model.manifest.trial.min_agreement
        counted = Agreement(section.min_agreement if asked < 0 else asked, section.parts, section.parts)
        for frame in frames:
            looked = model.look(frame)
            if looked.judgement is not None and not looked.judgement.finite:
                return counted, "it gave a value that is not finite"
            counted.add(*outcome(running.look(frame)), *outcome(looked))
        return counted, ""


class Emulated:
    def __init__(
        self, config_path: Path, day: Sequence[Frame], evening: Sequence[Frame], stopping: threading.Event
    ) -> None:
        self._config_path, self._stopping = config_path, stopping
        self._device = load_device(config_path)
        rng = Random(self._device.device.id)
        gate = FrameGate(self._device, cycle(rng.sample(day, len(day))), cycle(rng.sample(evening, len(evening))))
        self._gate = partial(_gate, gate)

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                updater = make_updater(self._device, self._config_path, self._stopping, lambda item: None, self._gate)
                with lock.writing(self._device.device.state_dir):
                    while not self._stopping.is_set():
                        self._stopping.wait(min(updater.turn(), self._device.update.poll_s))
            except GudgeonError as error:
                log.say(logging.WARNING, "no update now", device=self._device.device.id, reason=str(error))
                self._stopping.wait(RETRY_S)


def _gate(gate: Gate, slot_set: str) -> Gate | None:
    return gate if slot_set == SLOT_SET else None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, required=True, metavar="DIR")
    parser.add_argument("config", type=Path, nargs="+", metavar="DEVICE_TOML")
    args = parser.parse_args(argv)
    day, evening = frames_of(args.frames / "day"), frames_of(args.frames / "evening")
    stopping = stop_event()
    devices = [Emulated(path, day, evening, stopping) for path in args.config]
    threads = [threading.Thread(target=device.run, daemon=True) for device in devices]
    for thread in threads:
        thread.start()
    while not stopping.is_set():
        time.sleep(LOOK_S)
    for thread in threads:
        thread.join(10.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
