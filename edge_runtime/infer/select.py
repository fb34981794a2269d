"""Which variant of a bundle runs on this board: the fastest of those whose golden vectors pass, measured once.

The result is cached by (board, engine versions, bundle digest) in a JSON file. A warm cache costs one golden vector; a
variant that fails its vectors is refused and reported, never used.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import BundleError, GudgeonError
from edge_runtime.infer.engine import Engine
from edge_runtime.wire.manifest import Variant

MEASURE_RUNS = 40
WARM_RUNS = 5


class Selectable(Protocol):
    """What a bundle must be to be run here: a vision bundle or one of time series."""

    @property
    def path(self) -> Path: ...

    @property
    def digest(self) -> str: ...

    @property
    def variants(self) -> tuple[Variant, ...]: ...

    @property
    def expected(self) -> NDArray[np.float32]: ...

    def golden_inputs(self, limit: int | None = None) -> list[NDArray[np.float32]]: ...

    def decisions(self, outputs: NDArray[np.float32]) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class Refusal:
    variant: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """`latency_us`: median of each passing variant on this board; `cached`: taken from an earlier measurement."""

    engine: Engine
    latency_us: dict[str, float]
    refused: tuple[Refusal, ...]
    cached: bool


def open_engine(bundle: Selectable, variant: Variant) -> Engine:
    """Load one variant; BundleError or MissingExtraError if it cannot be."""
    path = bundle.path / variant.file
    if variant.engine == "onnxruntime":
        from edge_runtime.infer.onnx import OnnxEngine

        return OnnxEngine(path, variant.name)
    if variant.engine == "litert":
        from edge_runtime.infer.litert import LiteRtEngine

        return LiteRtEngine(path, variant.name)
    from edge_runtime.infer.reference import ReferenceEngine

    return ReferenceEngine(path, variant.name)


def check_golden(bundle: Selectable, variant: Variant, engine: Engine, inputs: list[NDArray[np.float32]]) -> str | None:
    """Why this engine does not reproduce the golden vectors, or None if it does."""
    got = np.stack([engine.infer(x) for x in inputs])
    want = bundle.expected[: len(inputs)]
    if got.shape != want.shape:
        return f"the engine gives {got.shape[1:]} values for an input, expected {want.shape[1]}"
    if not np.isfinite(got).all():
        return "a golden vector gave a value that is not finite"
    worst = float(np.abs(got - want).max())
    if worst > variant.tolerance:
        return f"golden vectors differ by {worst:.3f}, more than the tolerance {variant.tolerance:.3f}"
    agreement = float((bundle.decisions(got) == bundle.decisions(want)).mean())
    if agreement < variant.min_agreement and len(inputs) == len(bundle.expected):
        return f"{agreement:.0%} of the golden vectors keep their decision, expected {variant.min_agreement:.0%}"
    return None


def choose(
    bundle: Selectable, cache_path: Path, prefer: str = "auto", timer: Callable[[], int] = time.perf_counter_ns
) -> Choice:
    """The engine to run `bundle` with. `prefer` limits the choice to one engine's variants; ``reference`` runs the
    first `.onnx` variant in NumPy. BundleError if nothing passes."""
    variants = candidates(bundle, prefer)
    key = f"{board()}|{engine_versions()}|{bundle.digest}|{prefer}"
    cached = _cached(_read_cache(cache_path).get(key))
    if cached:
        name, latency_us, refused = cached
        engine = _reopen(bundle, variants, name)
        if engine is not None:
            return Choice(engine, latency_us, refused, True)
    choice = _measure(bundle, variants, timer)
    entry = {
        "variant": choice.engine.variant,
        "latency_us": choice.latency_us,
        "refused": [asdict(r) for r in choice.refused],
    }
    _write_cache(cache_path, key, entry)
    return choice


def candidates(bundle: Selectable, prefer: str) -> list[Variant]:
    """The variants that `choose` may choose among; BundleError where there is none."""
    if prefer == "reference":
        files = [v for v in bundle.variants if v.file.endswith(".onnx")]
        return [Variant(f"reference-{v.precision}", "reference", v.precision, v.file, v.tolerance) for v in files[:1]]
    wanted = [v for v in bundle.variants if prefer in ("auto", v.engine)]
    if not wanted:
        raise BundleError(f"bundle {bundle.path}: no variant for engine {prefer!r}")
    return wanted


def _cached(entry: Any) -> tuple[str, dict[str, float], tuple[Refusal, ...]] | None:
    """(variant, latencies, refusals) of a cache entry; None where there is none or it is damaged."""
    try:
        latency_us = {str(name): float(us) for name, us in entry["latency_us"].items()}
        return str(entry["variant"]), latency_us, tuple(Refusal(**r) for r in entry["refused"])
    except (TypeError, KeyError, ValueError, AttributeError):
        return None


def _reopen(bundle: Selectable, variants: list[Variant], name: str) -> Engine | None:
    variant = next((v for v in variants if v.name == name), None)
    if variant is None:
        return None
    try:
        engine = open_engine(bundle, variant)
        return None if check_golden(bundle, variant, engine, bundle.golden_inputs(1)) else engine
    except GudgeonError:
        return None


def _measure(bundle: Selectable, variants: list[Variant], timer: Callable[[], int]) -> Choice:
    inputs = bundle.golden_inputs()
    passing: dict[str, Engine] = {}
    refused: list[Refusal] = []
    for variant in variants:
        try:
            engine = open_engine(bundle, variant)
            problem = check_golden(bundle, variant, engine, inputs)
        except GudgeonError as error:
            refused.append(Refusal(variant.name, str(error)))
            continue
        if problem:
            refused.append(Refusal(variant.name, problem))
        else:
            passing[variant.name] = engine
    if not passing:
        reasons = "; ".join(f"{r.variant}: {r.reason}" for r in refused)
        raise BundleError(f"bundle {bundle.path}: no variant can run on this board: {reasons}")
    latency_us = _interleave(passing, inputs, timer)
    best = min(latency_us, key=lambda name: latency_us[name])
    for name, engine in passing.items():
        if name != best:
            engine.close()
    return Choice(passing[best], latency_us, tuple(refused), False)


def _interleave(
    engines: dict[str, Engine], inputs: list[NDArray[np.float32]], timer: Callable[[], int]
) -> dict[str, float]:
    """Median latency in µs of each engine, taken turn by turn so that noise meets all alike."""
    times: dict[str, list[int]] = {name: [] for name in engines}
    for i in range(WARM_RUNS + (MEASURE_RUNS if len(engines) > 1 else 5)):
        for name, engine in engines.items():
            x = inputs[i % len(inputs)]
            start = timer()
            engine.infer(x)
            if i >= WARM_RUNS:
                times[name].append(timer() - start)
    return {name: float(np.median(t)) / 1000.0 for name, t in times.items()}


def board() -> str:
    """What this board is, as far as it decides speed: model name or processor name, architecture, cores."""
    for path, prefix in (("/proc/device-tree/model", ""), ("/proc/cpuinfo", "model name")):
        try:
            text = Path(path).read_text(errors="replace")
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith(prefix):
                name = line.split(":", 1)[-1].strip(" \0")
                return f"{name} {platform.machine()} {os.cpu_count()}"
    return f"{platform.machine()} {os.cpu_count()}"


def engine_versions() -> str:
    """The installed engines, by the names of their distributions' folders (`importlib.metadata` would load a megabyte of
    e-mail parser into the control process)."""
    found = []
    for package in ("onnxruntime", "ai_edge_litert", "tflite_runtime"):
        folders = (info for place in sys.path for info in Path(place or ".").glob(f"{package}-*.dist-info"))
        if info := next(folders, None):
            found.append(f"{package}={info.name[len(package) + 1 : -len('.dist-info')]}")
    return ",".join(found)


def _read_cache(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _write_cache(path: Path, key: str, entry: dict[str, Any]) -> None:
    """Best effort: without a cache the next start measures again."""
    data = {**_read_cache(path), key: entry}
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(dict(list(data.items())[-32:]), indent=1))
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
