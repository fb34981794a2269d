"""A bundle is read as a whole or refused with one line that names the file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from edge_runtime.errors import BundleError
from edge_runtime.infer import bundle as bundles
from edge_runtime.tests.bundles import golden, golden_frames, make_bundle
from edge_runtime.wire import manifest as wire


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "b")


def refused(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        bundles.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def repack(path: Path, golden_bytes: bytes) -> None:
    """Put another golden.npz in, with its right digest: what a careless packer could do."""
    (path / wire.GOLDEN).write_bytes(golden_bytes)
    data = wire.parse((path / wire.MANIFEST).read_bytes()).to_dict()
    data["files"][wire.GOLDEN] = hashlib.sha256(golden_bytes).hexdigest()
    (path / wire.MANIFEST).write_text(tomli_w.dumps(data))


def test_a_good_one(path: Path) -> None:
    b = bundles.load(path)
    assert b.digest == hashlib.sha256((path / wire.MANIFEST).read_bytes()).hexdigest()
    assert len(b.golden.frames) == len(b.golden.logits) == 8
    assert b.variant("int8").precision == "int8"
    with pytest.raises(BundleError, match="no variant 'fp16'; it has fp32, int8"):
        b.variant("fp16")


@pytest.mark.parametrize("name", ["model.fp32.onnx", "model.int8.onnx", "golden.npz"])
def test_any_changed_byte_is_named(path: Path, name: str) -> None:
    content = bytearray((path / name).read_bytes())
    for at in (0, len(content) // 2, len(content) - 1):
        content[at] ^= 1
        (path / name).write_bytes(content)
        assert f"file {name} is corrupt: SHA-256" in refused(path)
        content[at] ^= 1


def test_missing_foreign_and_linked_files(path: Path, tmp_path: Path) -> None:
    (path / "stranger.bin").write_bytes(b"?")
    assert "file stranger.bin is not named in manifest.toml" in refused(path)
    (path / "stranger.bin").unlink()
    weights = (path / "model.int8.onnx").rename(tmp_path / "moved")
    assert "file model.int8.onnx is missing" in refused(path)
    (path / "model.int8.onnx").symlink_to(weights)
    assert "model.int8.onnx is missing or not a plain file" in refused(path)
    (path / "model.int8.onnx").unlink()
    (path / "model.int8.onnx").mkdir()
    assert "model.int8.onnx is missing or not a plain file" in refused(path)


def test_no_folder_no_manifest_and_a_bad_manifest(path: Path, tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "manifest.toml is missing; this folder is not a bundle" in refused(tmp_path / "empty")
    (path / wire.MANIFEST).write_text("schema = 2")
    assert "manifest.toml: schema is 2" in refused(path)
    (path / wire.MANIFEST).write_bytes(b"#" * (wire.LIMIT_BYTES + 1))
    assert "larger than" in refused(path)


def test_oversize_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "GOLDEN_LIMIT_BYTES", 1000)
    assert "golden.npz: " in refused(path)
    assert "over the limit of 1000" in refused(path)
    monkeypatch.setattr(bundles, "FILE_LIMIT_BYTES", 10)
    assert "is larger than 10 bytes" in refused(path)


def test_a_bundle_needs_golden_vectors(path: Path) -> None:
    data = wire.parse((path / wire.MANIFEST).read_bytes()).to_dict()
    del data["files"][wire.GOLDEN]
    (path / wire.MANIFEST).write_text(tomli_w.dumps(data))
    (path / wire.GOLDEN).unlink()
    assert "golden.npz is not named" in refused(path)


FRAMES = golden_frames()
LOGITS = np.zeros((len(FRAMES), 2), np.float32)
BAD_GOLDEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "golden.npz"),
    "no archive": (b"PK\3\4 not really", "golden.npz"),
    "no logits": (golden([], LOGITS[:0]), "logits have shape (0, 2)"),
    "other classes": (golden(FRAMES, np.zeros((len(FRAMES), 3), np.float32)), "logits have shape (8, 3)"),
    "flat": (golden(FRAMES, np.zeros(8, np.float32)), "logits have shape (8,)"),
    "too few frames": (golden(FRAMES[:-1], LOGITS), "frames_7"),
    "not finite": (golden(FRAMES, LOGITS + np.float32(np.nan)), "not finite"),
    "float frames": (golden([f.astype(np.float32) for f in FRAMES], LOGITS), "must be uint8"),
    "four channels": (golden([np.zeros((8, 8, 4), np.uint8)] * 8, LOGITS), "(height, width, 3)"),
    "no pixels": (golden([np.zeros((0, 8), np.uint8)] * 8, LOGITS), "must be uint8"),
}


@pytest.mark.parametrize("what", BAD_GOLDEN)
def test_bad_golden_vectors(path: Path, what: str) -> None:
    content, told = BAD_GOLDEN[what]
    repack(path, content)
    assert told in refused(path)


def test_pickled_golden_vectors_are_never_loaded(path: Path, tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"logits": np.array([{"a": 1}], dtype=object)}
    np.savez(tmp_path / "evil.npz", **arrays)
    repack(path, (tmp_path / "evil.npz").read_bytes())
    assert "golden.npz" in refused(path)
