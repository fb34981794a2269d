"""Bundle: an immutable folder, read and verified as a whole or refused with one line.

Every file is named with its SHA-256 in `manifest.toml`; a file that is missing, changed, not named or not a plain file
is a refusal. Verifying a signature is `update.trust`'s business. `Bundle` is a vision bundle; `infer.series_bundle` has
the bundles of time series, `infer.kinds` takes whichever a folder holds.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import BundleError
from edge_runtime.infer.pre import preprocess
from edge_runtime.wire import manifest as wire
from edge_runtime.wire.manifest import Manifest, Variant

FILE_LIMIT_BYTES = 512 * 1024 * 1024
GOLDEN_LIMIT = 256
GOLDEN_LIMIT_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, eq=False)
class Golden:
    """`frames`: raw uint8 frames; `logits`: float32 (n, classes), the FP32 variant's where it was trained."""

    frames: tuple[NDArray[np.uint8], ...]
    logits: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Bundle:
    path: Path
    manifest: Manifest
    digest: str
    golden: Golden

    @property
    def variants(self) -> tuple[Variant, ...]:
        return self.manifest.variants

    @property
    def expected(self) -> NDArray[np.float32]:
        """What the engine must give for each of `golden_inputs`, a row each."""
        return self.golden.logits

    def golden_inputs(self, limit: int | None = None) -> list[NDArray[np.float32]]:
        return [preprocess(frame, self.manifest.input) for frame in self.golden.frames[:limit]]

    def decisions(self, outputs: NDArray[np.float32]) -> NDArray[np.int64]:
        """What each row of outputs decides, for the share of golden vectors that must be decided alike."""
        return np.asarray(outputs.argmax(1), np.int64)

    def variant(self, name: str) -> Variant:
        for v in self.manifest.variants:
            if v.name == name:
                return v
        names = ", ".join(v.name for v in self.manifest.variants)
        raise BundleError(f"bundle {self.path}: no variant {name!r}; it has {names}")


def load(path: Path) -> Bundle:
    """Read and verify a bundle folder; BundleError says which file is wrong and what was expected."""
    data = read_manifest_bytes(path)
    try:
        manifest = wire.parse(data)
    except ValueError as error:
        raise BundleError(f"bundle {path}: {wire.MANIFEST}: {error}") from error
    verify_files(path, manifest.files)
    return Bundle(path, manifest, wire.digest(data), load_golden(path, len(manifest.classes)))


def read_manifest_bytes(path: Path) -> bytes:
    if not path.is_dir():
        raise BundleError(f"bundle {path}: no such folder; make one with `gudgeon train`")
    file = path / wire.MANIFEST
    if not file.is_file():
        raise BundleError(f"bundle {path}: {wire.MANIFEST} is missing; this folder is not a bundle")
    if file.stat().st_size > wire.LIMIT_BYTES:
        raise BundleError(f"bundle {path}: {wire.MANIFEST} is larger than {wire.LIMIT_BYTES} bytes")
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"bundle {path}: {wire.MANIFEST} cannot be read: {error}") from error


def verify_files(path: Path, files: Mapping[str, str]) -> None:
    """Every named file is there, plain, and has its digest; nothing else is there."""
    try:
        _verify_files(path, files)
    except OSError as error:
        raise BundleError(f"bundle {path}: cannot be read: {error}") from error


def _verify_files(path: Path, files: Mapping[str, str]) -> None:
    found = {p.name for p in path.iterdir()}
    allowed = {wire.MANIFEST, wire.SIGNATURE, *files}
    if extra := sorted(found - allowed):
        raise BundleError(f"bundle {path}: file {extra[0]} is not named in {wire.MANIFEST}; remove it")
    if wire.GOLDEN not in files:
        raise BundleError(f"bundle {path}: {wire.GOLDEN} is not named in {wire.MANIFEST}; it needs golden vectors")
    for name, expected in files.items():
        file = path / name
        if file.is_symlink() or not file.is_file():
            raise BundleError(f"bundle {path}: file {name} is missing or not a plain file")
        if file.stat().st_size > FILE_LIMIT_BYTES:
            raise BundleError(f"bundle {path}: file {name} is larger than {FILE_LIMIT_BYTES} bytes")
        with file.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        if actual != expected:
            raise BundleError(
                f"bundle {path}: file {name} is corrupt: SHA-256 {actual[:12]}…, expected {expected[:12]}…; "
                "copy the bundle again"
            )


@contextmanager
def opened_arrays(path: Path, name: str) -> Iterator[Mapping[str, NDArray[Any]]]:
    """The arrays of an `.npz` file of a bundle, bounded and without pickle; BundleError for whatever is wrong in it,
    also what the caller raises as ValueError or KeyError while reading."""
    try:
        with zipfile.ZipFile(path / name) as archive:
            size_bytes = sum(member.file_size for member in archive.infolist())
        if size_bytes > GOLDEN_LIMIT_BYTES:
            raise ValueError(f"{size_bytes} bytes unpacked, over the limit of {GOLDEN_LIMIT_BYTES}")
        with np.load(path / name, allow_pickle=False) as file:
            yield file
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise BundleError(f"bundle {path}: {name}: {error}") from error


def load_golden(path: Path, classes: int) -> Golden:
    with opened_arrays(path, wire.GOLDEN) as file:
        logits = np.asarray(file["logits"], np.float32)
        if logits.ndim != 2 or logits.shape[1] != classes or not 0 < len(logits) <= GOLDEN_LIMIT:
            raise ValueError(f"logits have shape {logits.shape}, expected (1…{GOLDEN_LIMIT}, {classes})")
        frames = tuple(np.asarray(file[f"frames_{i}"]) for i in range(len(logits)))
        if not np.isfinite(logits).all():
            raise ValueError("logits hold a value that is not finite")
    if any(f.dtype != np.uint8 or f.ndim not in (2, 3) or f.size == 0 or f.shape[2:] not in ((), (3,)) for f in frames):
        raise BundleError(f"bundle {path}: {wire.GOLDEN}: frames must be uint8 (height, width) or (height, width, 3)")
    return Golden(frames, logits)
