"""Artifacts that differ as releases do: weights that moved a little, other digests, a picture that is the same."""

from __future__ import annotations

import hashlib
import io
import tempfile
from pathlib import Path

import numpy as np

from edge_runtime.infer.tests import tiny_onnx
from edge_runtime.wire import archive

SIDE = 40


def weights(seed: int, moved: float = 0.0) -> dict[str, np.ndarray]:
    rng, change = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    shapes = {"conv": (SIDE, SIDE, 3, 3), "head": (8, SIDE)}
    return {
        name: rng.normal(size=shape).astype(np.float32) * (1 + moved * change.normal(size=shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def network(seed: int, moved: float = 0.0) -> bytes:
    n = tiny_onnx.node
    nodes = [n("Conv", ["x", "conv"], ["a"], kernel_shape=[3, 3]), n("Gemm", ["a", "head"], ["y"], transB=1)]
    return tiny_onnx.model(nodes, weights(seed, moved), (1, SIDE, 8, 8), (1, 8))


def files(seed: int = 0, moved: float = 0.0, version: str = "1") -> dict[str, bytes]:
    array = io.BytesIO()
    np.savez(array, table=weights(seed + 5, moved)["head"])
    return {
        "model.fp32.onnx": network(seed, moved),
        "golden.npz": array.getvalue(),
        "picture.bin": np.random.default_rng(9).bytes(200_000),
        "CARD.md": f"version {version}\n".encode() * 20,
    }


def folder(path: Path, content: dict[str, bytes]) -> Path:
    path.mkdir(parents=True)
    lines = ["schema = 1", "[files]"]
    for name, data in content.items():
        (path / name).write_bytes(data)
        lines.append(f'"{name}" = "{hashlib.sha256(data).hexdigest()}"')
    (path / "manifest.toml").write_text("\n".join(lines) + "\n")
    return path


def packed(content: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as name:
        archive.pack(folder(Path(name) / "b", content), out.write)
    return out.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
