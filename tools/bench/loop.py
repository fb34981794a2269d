"""`gudgeon bench loop`: the control loop from trigger to answer, against the bare engine run in the same process.

PLC and camera are in memory, so that what is measured is our own code: frame checks, pre-processing, engine, judgement,
rules, Guard, answer. Loop and bare engine take turns. The memory of a real `control` process is compared with that of a
process that imports NumPy and the engine and loads the model, nothing more.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.clock import SystemClock
from edge_runtime.config import PlcMap
from edge_runtime.decide.loop import Loop, Settings
from edge_runtime.decide.models import Models
from edge_runtime.errors import GudgeonError
from edge_runtime.field.camera_memory import MemoryCamera
from edge_runtime.field.driver import Value
from edge_runtime.field.handshake import handshake, next_seq
from edge_runtime.field.memory import MemoryDriver
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer.model import Model, load_model
from edge_runtime.infer.pre import preprocess
from edge_runtime.outbox.recorder import Recorder
from edge_runtime.outbox.store import Outbox
from tools.bench.figures import row
from tools.bench.memory import control_rss_bytes, floor_rss_bytes

TAGS = handshake(PlcMap())
WARM = 20


class SpreadClock(SystemClock):
    """Real time that is moved forward between parts, so that Guard sees them at the pace of a line."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() + self.ahead_ns


class Bench:
    """A loop over a PLC and a camera in memory that show the bundle's golden frames, each with fresh noise."""

    def __init__(self, bundle_dir: Path, folder: Path, engine: str = "auto") -> None:
        self.model: Model = load_model(bundle_dir, folder / "engines.json", engine)
        bundle = bundles.load(bundle_dir)
        self._frames = [self._noisy(f, i) for i, f in enumerate(bundle.golden.frames)]
        self.inputs = bundle.golden_inputs()
        self._plc = MemoryDriver({t.name: 0 for t in (*TAGS.inputs, *TAGS.results)})
        self._plc.values["line_state"] = 6
        self._plc.on_write = self._on_write
        camera = MemoryCamera(lambda trigger: self._frames[trigger % len(self._frames)])
        self._clock = SpreadClock()
        recorder = Recorder(Outbox(folder / "outbox.db", "bench", "bench"))
        settings = Settings(deadline_ms=1000, frame_timeout_ms=1000, heartbeat_ms=3_600_000)
        self._loop = Loop(settings, TAGS, self._plc, camera, Models(self.model, {}), recorder, self._clock)
        self._answered_ns = 0
        self._seq = 0

    @staticmethod
    def _noisy(frame: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        noise = np.random.default_rng(seed).integers(-1, 2, frame.shape)
        return np.asarray(np.clip(frame.astype(np.int16) + noise, 0, 255), np.uint8)

    def _on_write(self, written: dict[str, Value]) -> None:
        if "result_seq" in written:
            self._answered_ns = time.perf_counter_ns()

    def settle(self) -> None:
        while self._loop.step() == 0.0:
            pass

    def part_ns(self) -> int:
        """One part: nanoseconds from the trigger to its answer."""
        self._seq = next_seq(self._seq)
        self._plc.values["part_seq"] = self._seq
        start = time.perf_counter_ns()
        self._loop.step()
        if self._plc.values["result_seq"] != self._seq:
            raise GudgeonError(f"part {self._seq} was not answered")
        taken = self._answered_ns - start
        self._clock.ahead_ns += 50_000_000
        self.settle()
        self._plc.writes.clear()
        return taken

    def bare_ns(self, i: int) -> int:
        return timed(self.model.engine.infer, self.inputs[i % len(self.inputs)])

    def pre_and_bare_ns(self, i: int) -> int:
        frame = self._frames[i % len(self._frames)]
        return timed(lambda: self.model.engine.infer(preprocess(frame, self.model.manifest.input)))


def timed(work: Callable[..., Any], *args: Any) -> int:
    start = time.perf_counter_ns()
    work(*args)
    return time.perf_counter_ns() - start


def run(bundle_dir: Path, count: int, engine: str = "auto", memory: bool = True) -> dict[str, Any]:
    """`count` parts, each between one bare engine run and one with pre-processing."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(bundle_dir, Path(folder), engine)
        bench.settle()
        bare, pre, loop = [], [], []
        gc.collect()
        gc.freeze()
        for i in range(WARM + count):
            times = bench.bare_ns(i), bench.pre_and_bare_ns(i), bench.part_ns()
            if i >= WARM:
                bare.append(times[0])
                pre.append(times[1])
                loop.append(times[2])
        ran = bench.model.engine
        result: dict[str, Any] = {
            "bench": "loop",
            "engine": ran.name,
            "variant": ran.variant,
            "bundle_digest": bench.model.digest,
            "count": count,
            "floor": "bare engine run",
            "rows": [
                row("bare engine run", bare, bare),
                row("pre-processing + engine", pre, bare),
                row("loop: trigger → answer", loop, bare),
            ],
        }
        if memory:
            result["memory"] = compare_memory(bundle_dir, engine)
    return result


def compare_memory(bundle_dir: Path, engine: str) -> dict[str, Any]:
    control, variant = control_rss_bytes(bundle_dir, engine)
    floor = floor_rss_bytes(bundle_dir, variant)
    ratio = round(control / floor, 3)
    return {"control_rss_bytes": control, "floor_rss_bytes": floor, "ratio": ratio, "variant": variant}
