"""Small real bundles for tests: a network that calls a bright spot a defect, signed, with golden vectors.

`make_bundle(tmp_path / "b")` gives a folder that `update.install` accepts; its frames come from `make_frame`. The
network is Conv (3 × 3 mean) → Relu → GlobalMaxPool → Gemm: the brightest 3 × 3 neighbourhood decides. A third class,
where there is one, is a dark spot.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from edge_runtime.infer import frame_check
from edge_runtime.infer.pre import preprocess
from edge_runtime.infer.reference import ReferenceEngine
from edge_runtime.infer.tests import tiny_onnx
from edge_runtime.update.sign import sign_bundle
from edge_runtime.wire import manifest as wire
from edge_runtime.wire.manifest import GuardLimits, InputSpec, Manifest, Thresholds, Variant

SIDE = 32
FRAME_SIDE = 64
GREY, NOISE, BRIGHT = 100, 8, 220
GOLDEN_FRAMES = 8
SPEC = InputSpec(height=SIDE, width=SIDE, channels=1, resize="area", normalise="mean_std", mean=100.0, std=50.0)

Tamper = Literal["", "manifest", "weights", "missing", "extra"]


def make_frame(defect: bool, seed: int = 0, level: int = BRIGHT) -> NDArray[np.uint8]:
    """uint8 (64, 64): grey noise, and a 12 × 12 spot of brightness `level` where `defect`. Brightness 160 gives a
    score of about 0.5; below about 40 it is a dark spot."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(GREY, NOISE, (FRAME_SIDE, FRAME_SIDE))
    if defect:
        row, column = rng.integers(4, FRAME_SIDE - 16, 2)
        pixels[row : row + 12, column : column + 12] += level - GREY
    return np.clip(pixels, 0, 255).astype(np.uint8)


def make_bundle(
    path: Path,
    *,
    seed: int = 0,
    audit: str = "answer_first",
    name: str = "test",
    version: str | None = None,
    classes: Sequence[str] = ("ok", "spot"),
    reject: float = 0.5,
    review: float = 0.3,
    class_min: Mapping[str, float] | None = None,
    sign_key: Ed25519PrivateKey | None = None,
    signed: bool = True,
    int8: bool = True,
    tampered: Tamper = "",
    guard: GuardLimits | None = None,
    **changes: Any,
) -> Path:
    """Write a bundle into the new folder `path` and return it. `seed` changes weights and digest, not behaviour.

    `sign_key` None: the local developer key (`$GUDGEON_HOME`). `tampered`: what is damaged after signing. `changes` are
    further manifest fields (`temperature`, `variants`, …)."""
    path.mkdir(parents=True)
    files = {"model.fp32.onnx": model(len(classes), seed)}
    variants = [Variant("fp32", "onnxruntime", "fp32", "model.fp32.onnx", 1e-3)]
    if int8:
        files["model.int8.onnx"] = model_int8(len(classes), seed)
        variants.append(Variant("int8", "onnxruntime", "int8", "model.int8.onnx", 0.5))
    frames = golden_frames(len(classes))
    for file, content in files.items():
        (path / file).write_bytes(content)
    engine = ReferenceEngine(path / "model.fp32.onnx", "fp32")
    files[wire.GOLDEN] = golden(frames, np.stack([engine.infer(preprocess(f, SPEC)) for f in frames]))
    (path / wire.GOLDEN).write_bytes(files[wire.GOLDEN])
    values: dict[str, Any] = {
        "name": name,
        "version": version or f"1.0.{seed}",
        "created": "2026-01-01T00:00:00Z",
        "classes": tuple(classes),
        "ok_class": classes[0],
        "temperature": 1.0,
        "input": SPEC,
        "frame_limits": frame_check.calibrate(frames),
        "thresholds": Thresholds(reject, review, dict(class_min or {})),
        "guard": guard or GuardLimits(),
        "variants": tuple(variants),
        "files": {file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
        "audit": audit,
        **changes,
    }
    (path / wire.MANIFEST).write_text(tomli_w.dumps(Manifest(**values).to_dict()))
    if signed:
        sign_bundle(path, sign_key)
    tamper(path, tampered)
    return path


def tamper(path: Path, what: Tamper) -> None:
    weights = path / "model.fp32.onnx"
    if what == "manifest":
        (path / wire.MANIFEST).write_text((path / wire.MANIFEST).read_text() + "# changed\n")
    elif what == "weights":
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 0xFF
        weights.write_bytes(content)
    elif what == "missing":
        weights.unlink()
    elif what == "extra":
        (path / "stranger.bin").write_bytes(b"?")


def golden_frames(classes: int = 2) -> list[NDArray[np.uint8]]:
    kinds = (None, BRIGHT, None, 20) if classes > 2 else (None, BRIGHT)
    levels = [kinds[i % len(kinds)] for i in range(GOLDEN_FRAMES)]
    return [make_frame(level is not None, 1000 + i, level or 0) for i, level in enumerate(levels)]


def golden(frames: Sequence[NDArray[np.uint8]], logits: NDArray[np.float32]) -> bytes:
    """The bytes of a `golden.npz`."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"logits": logits, **{f"frames_{i}": f for i, f in enumerate(frames)}}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def weights(classes: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """conv: (2, 1, 3, 3), mean and negative mean; head: (classes, 2) and bias (classes,)."""
    conv = np.full((2, 1, 3, 3), 1 / 9, np.float32)
    conv[1] *= -1
    head = np.zeros((classes, 2), np.float32)
    bias = np.full(classes, -8.0, np.float32)
    bias[0] = 1e-4 * seed
    for i in range(1, min(classes, 3)):
        head[i, i - 1], bias[i] = 6.0, -7.2
    return {"conv": conv, "head": head, "bias": bias}


def model(classes: int, seed: int) -> bytes:
    n = tiny_onnx.node
    nodes = [
        n("Conv", ["x", "conv"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        n("Relu", ["a"], ["b"]),
        n("GlobalMaxPool", ["b"], ["c"]),
        n("Flatten", ["c"], ["d"]),
        n("Gemm", ["d", "head", "bias"], ["y"], transB=1),
    ]
    return tiny_onnx.model(nodes, weights(classes, seed), (1, 1, SIDE, SIDE), (1, classes))


def model_int8(classes: int, seed: int) -> bytes:
    """The same network in QDQ form: uint8 activations, int8 convolution weights per channel."""
    w = weights(classes, seed)
    conv = w.pop("conv")
    scale = np.full(2, 1 / 9 / 127, np.float32)
    tensors: dict[str, NDArray[Any]] = {
        **w,
        "conv_q": np.rint(conv / scale.reshape(2, 1, 1, 1)).astype(np.int8),
        "conv_scale": scale,
        "conv_zero": np.zeros(2, np.int8),
        "x_scale": np.array(5.2 / 255, np.float32),
        "x_zero": np.array(98, np.uint8),
        "b_scale": np.array(3.2 / 255, np.float32),
        "b_zero": np.array(0, np.uint8),
    }
    n = tiny_onnx.node
    nodes = [
        n("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"]),
        n("DequantizeLinear", ["xq", "x_scale", "x_zero"], ["xd"]),
        n("DequantizeLinear", ["conv_q", "conv_scale", "conv_zero"], ["wd"], axis=0),
        n("Conv", ["xd", "wd"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        n("Relu", ["a"], ["b"]),
        n("QuantizeLinear", ["b", "b_scale", "b_zero"], ["bq"]),
        n("DequantizeLinear", ["bq", "b_scale", "b_zero"], ["bd"]),
        n("GlobalMaxPool", ["bd"], ["c"]),
        n("Flatten", ["c"], ["d"]),
        n("Gemm", ["d", "head", "bias"], ["y"], transB=1),
    ]
    return tiny_onnx.model(nodes, tensors, (1, 1, SIDE, SIDE), (1, classes))
