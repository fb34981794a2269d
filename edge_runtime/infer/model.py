"""Model: a verified bundle and the engine that runs it; from raw pixels to a judgement in three timed steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.infer import bundle as bundles
from edge_runtime.infer import frame_check, select
from edge_runtime.infer.engine import Engine
from edge_runtime.infer.post import Judgement, judge
from edge_runtime.infer.pre import preprocess
from edge_runtime.infer.select import Refusal
from edge_runtime.wire.manifest import Manifest


@dataclass(frozen=True)
class Looked:
    """`judgement` is None where the frame has a `problem`. `steps_us`: time of check, pre and infer in microseconds."""

    judgement: Judgement | None
    problem: str
    steps_us: dict[str, int]


class Model:
    """`refused` are the variants that failed their golden vectors on this board."""

    def __init__(self, manifest: Manifest, digest: str, engine: Engine, refused: tuple[Refusal, ...] = ()) -> None:
        self.manifest, self.digest, self.engine, self.refused = manifest, digest, engine, refused

    def look(
        self,
        pixels: NDArray[np.uint8],
        previous: NDArray[np.uint8] | None = None,
        timer: Callable[[], int] = time.perf_counter_ns,
    ) -> Looked:
        """Judge one frame. `previous` is the frame before it, to tell a frozen camera; None: not asked.

        Raises `errors.BundleError` where the engine fails, ValueError where the frame is no image."""
        t0 = timer()
        problem = frame_check.check(pixels, self.manifest.frame_limits, previous)
        t1 = timer()
        if problem:
            return Looked(None, problem, {"check": (t1 - t0) // 1000})
        x = preprocess(pixels, self.manifest.input)
        t2 = timer()
        judgement = judge(self.engine.infer(x), self.manifest)
        t3 = timer()
        steps = {"check": (t1 - t0) // 1000, "pre": (t2 - t1) // 1000, "infer": (t3 - t2) // 1000}
        return Looked(judgement, "", steps)


def load_model(bundle_dir: Path, cache_path: Path, prefer: str = "auto") -> Model:
    """Verify the bundle, take the fastest variant that passes its golden vectors here, and warm it up.

    Raises `errors.BundleError` where the bundle is refused."""
    bundle = bundles.load(bundle_dir)
    choice = select.choose(bundle, cache_path, prefer)
    model = Model(bundle.manifest, bundle.digest, choice.engine, choice.refused)
    for x in bundle.golden_inputs(3):
        choice.engine.infer(x)
    return model
