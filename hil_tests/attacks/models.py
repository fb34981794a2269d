"""Models that are signed and right in every hash, and must not run all the same: the real process that tries candidates refuses
each, while the `control` that it watches goes on as it was. Some are graphs that go wrong by themselves; what no graph can do (a
crash or a hang of the engine) is done by `tools.bench.faulty`."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tomli_w

from edge_runtime.decide.trial_settings import TrialSection
from edge_runtime.infer.pre import preprocess
from edge_runtime.infer.tests import tiny_onnx
from edge_runtime.infer.tests.tiny_onnx import node
from edge_runtime.tests.bundles import SIDE, SPEC, golden_frames, make_bundle, weights
from edge_runtime.tests.waiting import until
from edge_runtime.update.gate import Candidate, Verdict
from edge_runtime.update.trial import line_gate
from edge_runtime.update.trial.judge import MODULE
from edge_runtime.update.trial.line_gate import LineGate
from edge_runtime.update.trial.tests.test_line_gate import Control
from edge_runtime.wire import manifest as wire
from hil_tests.attacks.row import Attack
from tools.bench.faulty import JUDGE

SECTION = TrialSection(parts=10, most_parts=60, timeout_s=60.0, memory_mib=512)
DEADLINE_MS = 1000.0
AS_THEY_ARE = {
    "slow_ratio": 1000.0,
    "deadline_share": 1.0,
}  # the models of tests take microseconds: their ratios are noise
Make = Callable[[Path], Path]


@contextmanager
def line(folder: Path) -> Iterator[Control]:
    (folder / "state/run").mkdir(parents=True)
    make_bundle(folder / "running")
    control = Control(folder / "state", candidate(folder / "running").digest)
    control.start()
    try:
        yield control
    finally:
        control.stopping.set()
        control.join()


def candidate(folder: Path) -> Candidate:
    digest = wire.digest((folder / wire.MANIFEST).read_bytes())
    return Candidate("default", folder, digest, digest)


def tried(folder: Path, make: Make, module: str, limits: Mapping[str, float]) -> tuple[Verdict, Control]:
    """The verdict on what `make` makes, beside a line that goes on."""
    with line(folder) as control:
        found = candidate(make(folder / "candidate"))
        section = TrialSection(**{**vars(SECTION), **AS_THEY_ARE, **limits})
        gate = LineGate(folder / "state", "onnxruntime", DEADLINE_MS, section, lambda _: folder / "running", module)
        verdict = gate.check(found)
        parts = control.parts
        until(lambda: control.parts > parts, told=lambda: "the line does not go on")
        return verdict, control


def refused(
    make: Make,
    told: str,
    module: str = MODULE,
    loads_s: float = 60.0,
    silence_s: float = 60.0,
    **limits: float,
) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        with mock.patch.multiple(line_gate, WORK_S=loads_s, SILENCE_S=silence_s):
            verdict, control = tried(folder, make, module, limits)
        assert not verdict.ok
        assert told in verdict.reason, verdict.reason
        assert control.running == candidate(folder / "running").digest
        assert control.state == "idle"

    return run


# ── candidates ──────────────────────────────────────────────────────────────────────────────────────────────────────


def changed(path: Path, content: bytes | None = None, **manifest: Any) -> Path:
    """A sound bundle, golden vectors and all, whose network is then another one, and its hash with it."""
    make_bundle(path, seed=1, int8=False)
    data = tomllib.loads((path / wire.MANIFEST).read_text()) | manifest
    if content is not None:
        (path / "model.fp32.onnx").write_bytes(content)
        data["files"]["model.fp32.onnx"] = hashlib.sha256(content).hexdigest()
    (path / wire.MANIFEST).write_text(tomli_w.dumps(data))
    return path


def faulty(fault: str, live: bool = False) -> Make:
    return lambda path: changed(path, training={"fault": fault, "where": "judge", "live": live})


def network(*more: bytes, tensors: Mapping[str, Any] | None = None, side: int | str = SIDE) -> bytes:
    """That of `edge_runtime.tests.bundles`; with `more`, which makes `factor`, what it has found is multiplied by that."""
    last = "spoilt" if more else "d"
    nodes = [
        node("Conv", ["x", "conv"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("GlobalMaxPool", ["b"], ["c"]),
        node("Flatten", ["c"], ["d"]),
        *more,
        *([node("Mul", ["d", "factor"], ["spoilt"])] if more else []),
        node("Gemm", [last, "head", "bias"], ["y"], transB=1),
    ]
    return tiny_onnx.model(nodes, {**weights(2, 1), **(tensors or {})}, (1, 1, side, side), (1, 2))


def on_strangers(*more: bytes, tensors: Mapping[str, Any] | None = None) -> Make:
    """`margin` is positive on the golden frames, known by their brightness, and negative on nearly every other frame."""
    known = [np.float32(preprocess(frame, SPEC).mean()) for frame in golden_frames()]
    whether = [
        node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        node("Sub", ["mean", "known"], ["off"]),
        node("Abs", ["off"], ["distance"]),
        node("ReduceMin", ["distance"], ["nearest"], keepdims=0),
        node("Sub", ["near", "nearest"], ["margin"]),
    ]
    known_ones = {"known": np.array(known, np.float32), "near": np.array(1e-5, np.float32)}
    return lambda path: changed(path, network(*whether, *more, tensors={**known_ones, **(tensors or {})}))


NAN = on_strangers(node("Relu", ["margin"], ["kept"]), node("Div", ["kept", "kept"], ["factor"]))
RAISE = on_strangers(
    node("Sign", ["margin"], ["sign"]),
    node("Mul", ["sign", "three"], ["thrice"]),
    node("Sub", ["thrice", "two"], ["place"]),
    node("Cast", ["place"], ["index"], to=7),
    node("Gather", ["ones", "index"], ["factor"], axis=0),  # place 1, or -5, which is not there
    tensors={"three": np.array(3, np.float32), "two": np.array(2, np.float32), "ones": np.ones(2, np.float32)},
)


def heavy(path: Path) -> Path:
    more = [
        node("Conv", ["x", "wide"], ["h"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Conv", ["h", "deep"], ["g"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("ReduceMean", ["g"], ["m"], keepdims=0),
        node("Mul", ["m", "nothing"], ["none"]),
        node("Add", ["none", "one"], ["factor"]),
    ]
    tensors = {"wide": np.ones((64, 1, 3, 3), np.float32), "deep": np.ones((16, 64, 3, 3), np.float32)}
    tensors |= {"nothing": np.array(0, np.float32), "one": np.array(1, np.float32)}
    return changed(path, network(*more, tensors=tensors))


def greedy(path: Path) -> Path:
    """64 GiB of a value that only the frame gives, so that no optimiser finds it out beforehand."""
    more = [
        node("ReduceMean", ["x"], ["mean"], keepdims=0),
        node("Expand", ["mean", "shape"], ["huge"]),
        node("ReduceMax", ["huge"], ["top"], keepdims=0),
        node("Mul", ["top", "nothing"], ["none"]),
        node("Add", ["none", "one"], ["factor"]),
    ]
    tensors = {
        "shape": np.array([1 << 34], np.int64),
        "nothing": np.array(0, np.float32),
        "one": np.array(1, np.float32),
    }
    return changed(path, network(*more, tensors=tensors))


def oversized(path: Path) -> Path:
    spec = {**vars(SPEC), "height": 4096, "width": 4096}
    return changed(path, network(side="side"), input=spec)


def other_weights(path: Path) -> Path:
    return changed(path, tiny_onnx.model([node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w", "z"], ["y"])],
        {"w": np.ones((SIDE * SIDE, 2), np.float32), "z": np.zeros(2, np.float32)}, (1, 1, SIDE, SIDE), (1, 2)))  # fmt: skip


def all_rejected(path: Path) -> Path:
    return changed(path, thresholds={"reject": 0.0, "review": 0.0, "class_min": {}})


ROWS = [
    Attack("models", "other weights than the golden vectors were made with", "golden vectors",
           refused(other_weights, "golden vectors differ by")),
    Attack("models", "sound on its golden frames, not a number on live ones", "not finite on a live frame",
           refused(NAN, "not finite on a live frame")),
    Attack("models", "sound on its golden frames, an error on live ones", "it failed on a live frame",
           refused(RAISE, "it failed on a live frame")),
    Attack("models", "decides otherwise than what runs", "parts decided alike",
           refused(all_rejected, "it decides otherwise than what runs")),
    Attack("models", "many times slower than what runs", "too slow",
           refused(heavy, "too slow: p50", slow_ratio=2.0)),
    Attack("models", "asks for all the memory of the board", "not fit to run",
           refused(greedy, "not fit to run")),
    Attack("models", "an input of 16 million pixels", "not fit to run",
           refused(oversized, "not fit to run", memory_mib=256)),
    Attack("models", "takes its process down when it is loaded", "SIGSEGV in phase loading",
           refused(faulty("load-crash"), "ended with SIGSEGV in phase loading", JUDGE)),
    Attack("models", "hangs when it is loaded", "hung",
           refused(faulty("load-hang"), "it hung in phase", JUDGE, loads_s=3.0)),
    Attack("models", "takes its process down on a live frame", "SIGSEGV in phase live",
           refused(faulty("segv", live=True), "ended with SIGSEGV in phase live", JUDGE)),
    Attack("models", "hangs on a live frame, in native code", "hung in phase live",
           refused(faulty("hang", live=True), "it hung in phase live", JUDGE, silence_s=3.0)),
    Attack("models", "eats memory, frame by frame", "it failed on a live frame: MemoryError",
           refused(faulty("memory", live=True), "it failed on a live frame", JUDGE)),
]  # fmt: skip
