"""From trained files to a bundle folder: manifest, digests, golden vectors with tolerances, card. Needs no PyTorch.

The folder is built beside its place and moved there when complete, so that an interrupted run leaves no half bundle.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from edge_runtime.durable import disk_errors
from edge_runtime.errors import DataError
from edge_runtime.infer import frame_check
from edge_runtime.infer.engine import Engine
from edge_runtime.infer.pre import preprocess
from edge_runtime.update.sign import sign_bundle
from edge_runtime.wire import manifest as wire
from edge_runtime.wire.manifest import FrameLimits, GuardLimits, InputSpec, Manifest, Thresholds, Variant

CARD = "CARD.md"
FP32, INT8, TFLITE = "model.fp32.onnx", "model.int8.onnx", "model.int8.tflite"
GOLDEN_MARGIN = 0.5  # logits between the first and the second class of a golden vector, at least, where there are such


@dataclass(frozen=True)
class Contents:
    """All that a bundle is made of. `golden`: raw frames; `train_frames`: what the frame limits are calibrated on;
    `engines`: variant file → (engine name, precision, an open engine to measure the tolerance with)."""

    name: str
    version: str
    created: str
    classes: tuple[str, ...]
    ok_class: str
    temperature: float
    input: InputSpec
    thresholds: Thresholds
    golden: Sequence[NDArray[np.uint8]]
    train_frames: Sequence[NDArray[np.uint8]]
    engines: Mapping[str, tuple[str, str, Engine]]
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    guard: GuardLimits = field(default_factory=GuardLimits)


def check_place(out: Path) -> None:
    """DataError if `out` is something that must not be replaced: anything but nothing, an empty folder or a bundle."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise DataError(f"{out}: not a folder; choose another --out")
    if out.is_dir() and any(out.iterdir()) and not (out / wire.MANIFEST).is_file():
        raise DataError(f"{out}: not empty and not a bundle, so it is not replaced; choose another --out")


def pack(out: Path, work: Path, contents: Contents, key: Ed25519PrivateKey | None = None) -> Manifest:
    """Write and sign the bundle `out` from the model files in `work`; `key` is the developer key where none is given."""
    check_place(out)
    building = out.with_name(f".{out.name}.building")
    with disk_errors(out):
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        for file in contents.engines:
            shutil.copyfile(work / file, building / file)
        logits = golden_logits(contents)
        frames = {f"frames_{i}": frame for i, frame in enumerate(contents.golden)}
        np.savez_compressed(building / wire.GOLDEN, logits=logits, **frames)  # type: ignore[arg-type]
        manifest = make_manifest(building, contents, logits)
        (building / wire.MANIFEST).write_bytes(tomli_w.dumps(manifest.to_dict()).encode())
        sign_bundle(building, key)
        shutil.rmtree(out, ignore_errors=True)
        building.rename(out)
    return manifest


def make_manifest(building: Path, contents: Contents, logits: NDArray[np.float32]) -> Manifest:
    variants = tuple(
        _variant(contents, file, engine, precision, logits) for file, (engine, precision, _) in contents.engines.items()
    )
    draft = Manifest(
        name=contents.name,
        version=contents.version,
        created=contents.created,
        classes=contents.classes,
        ok_class=contents.ok_class,
        temperature=contents.temperature,
        input=contents.input,
        frame_limits=frame_limits(contents.train_frames),
        thresholds=contents.thresholds,
        guard=contents.guard,
        variants=variants,
        files={},
        training=contents.training,
        metrics=contents.metrics,
    )
    (building / CARD).write_text(card(draft), encoding="utf-8")
    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(building.iterdir())}
    return Manifest(**{**draft.__dict__, "files": files})


def frame_limits(frames: Sequence[NDArray[np.uint8]]) -> FrameLimits:
    """Calibrated light and sharpness; sizes from half the smallest to twice the largest frame seen."""
    limits = frame_check.calibrate(frames)
    heights, widths = [f.shape[0] for f in frames], [f.shape[1] for f in frames]
    sizes = {
        "min_height": max(16, min(heights) // 2),
        "min_width": max(16, min(widths) // 2),
        "max_height": max(heights) * 2,
        "max_width": max(widths) * 2,
    }
    return FrameLimits(**{**limits.__dict__, **sizes})


def _answers(contents: Contents, engine: Engine) -> NDArray[np.float32]:
    return np.stack([engine.infer(preprocess(frame, contents.input)) for frame in contents.golden])


def golden_logits(contents: Contents) -> NDArray[np.float32]:
    return _answers(contents, contents.engines[FP32][2])


def _variant(contents: Contents, file: str, engine: str, precision: str, logits: NDArray[np.float32]) -> Variant:
    """The tolerance is what was measured here, doubled, plus what another processor's rounding may add."""
    measured = float(np.abs(_answers(contents, contents.engines[file][2]) - logits).max())
    floor = 0.01 if precision == "fp32" else 0.3
    name = f"{engine}-{precision}"
    agreement = 1.0 if precision == "fp32" else 0.85
    return Variant(name, engine, precision, file, round(2.0 * measured + floor, 4), agreement)


def choose_golden(
    labels: NDArray[np.int64], logits: NDArray[np.float32], count: int, rng: np.random.Generator
) -> list[int]:
    """`count` samples, the classes in turn, at random among those that the network is not undecided about."""
    top = np.sort(logits, axis=1)
    clear = top[:, -1] - top[:, -2] >= GOLDEN_MARGIN
    queues = []
    for number in np.unique(labels):
        places = rng.permutation(np.nonzero(labels == number)[0])
        queues.append(sorted(places.tolist(), key=lambda i: not clear[i]))
    turns = max((len(q) for q in queues), default=0)
    order = [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)]
    return order[:count]


def card(manifest: Manifest) -> str:
    """CARD.md: what a person should know before trusting this bundle."""
    training, figures = manifest.training, manifest.metrics
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        f"Sorts a grey image into {', '.join(manifest.classes)}; `{manifest.ok_class}` is the sound class.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key.replace('_', ' ')} | {_shown(value)} |" for key, value in training.items() if key != "recipe"),
        f"| input | {manifest.input.height} × {manifest.input.width}, {manifest.input.resize} |",
        f"| thresholds | review {manifest.thresholds.review}, reject {manifest.thresholds.reject} |",
        f"| temperature | {manifest.temperature:.3f} |",
        "",
        "Held-out figures (parts of the training split that the measured network was not trained on; fractions):",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {key} | {_shown(value)} |" for key, value in figures.items()),
        "",
        "Use it for parts that look like the training images, under the light and at the size that they had. Frames "
        "outside the manifest's frame limits are answered with `review`. The figures are of the training split; measure "
        "your own parts with `gudgeon evaluate BUNDLE_DIR --data DIR`.",
        "",
    ]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
