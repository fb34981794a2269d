"""What a swap costs the loop itself, measured in this process: a frame handed over, the watch around an engine, and how long a
thread that loads a model keeps another one from running."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.datagrams import bound
from edge_runtime.decide.decision import Decision, Result
from edge_runtime.decide.engine_watch import EngineWatch
from edge_runtime.decide.errand import Errand
from edge_runtime.decide.frames import FrameBox, FramePlace
from edge_runtime.decide.models import Seen
from edge_runtime.decide.swap_socket import SwapSocket
from edge_runtime.field.camera import Frame
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer import select
from edge_runtime.infer.model import load_model
from tools.bench.figures import percentiles_us

SHAPES = ((320, 280), (480, 640, 3), (1200, 1600, 3))
COUNT = 300
LOADS = 10
LOOK_S = 0.0005


def run(folder: Path, bundle_dir: Path) -> dict[str, Any]:
    watch = EngineWatch(folder / "watch", time.monotonic_ns)
    watch.limit(200)

    def around() -> None:
        with watch:
            pass

    result: dict[str, Any] = {"hand_over_us": {}, "watch_us": percentiles_us(timed(around))}
    for shape in SHAPES:
        result["hand_over_us"]["×".join(map(str, shape))] = percentiles_us(hand_over(folder, shape))
    load_model(bundle_dir, folder / "engines.json")
    bundle = bundles.load(bundle_dir)
    result["gap_us"] = {"nothing": gaps(lambda: time.sleep(0.05))}
    result["gap_us"]["whole bundle"] = gaps(lambda: load_model(bundle_dir, folder / "engines.json"))
    for variant in bundle.variants:
        result["gap_us"][f"session {variant.name}"] = gaps(lambda v=variant: select.open_engine(bundle, v))  # type: ignore[misc]
    return result


def timed(work: Callable[[], object]) -> list[int]:
    times = []
    for _ in range(COUNT):
        begin = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - begin)
    return times


def hand_over(folder: Path, shape: tuple[int, ...]) -> list[int]:
    place = FramePlace(16 << 20)
    box = FrameBox(place.path, place.size_bytes)
    other, mine = bound(folder / "other.sock"), SwapSocket(folder / "mine.sock")
    other.settimeout(10)
    decision = Decision(1, 1, Result.PASS, 0.1, "", "", "0" * 64, "", "", None, 0)
    seen = Seen(decision, Frame(1, 0, np.zeros(shape, np.uint8)))
    times = []
    for _ in range(COUNT):
        begin = time.perf_counter_ns()
        header = box.put(seen)
        assert header is not None
        mine.send(str(folder / "other.sock"), header)
        times.append(time.perf_counter_ns() - begin)
        place.take({"shape": shape})
        other.recv(1 << 16)
        box.taken()
    other.close()
    mine.close()
    return times


def gaps(work: Callable[[], object]) -> dict[str, float]:
    """How late this thread wakes while an `Errand` does the work, again and again."""
    late: list[int] = []
    gc.collect()
    for _ in range(LOADS):
        errand = Errand(work)
        while not errand.done:
            begin = time.perf_counter_ns()
            time.sleep(LOOK_S)
            late.append(time.perf_counter_ns() - begin - round(LOOK_S * 1e9))
        if errand.error:
            sys.exit(f"the work of an errand failed: {errand.error}")
    return percentiles_us(late)
