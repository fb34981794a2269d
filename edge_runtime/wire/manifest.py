"""Manifest: what a bundle says of itself. `manifest.toml` in the bundle folder; its SHA-256 is the bundle's digest.

This file has the vision bundle and what all kinds share; `wire.series` has the bundles of time series.

<bundle>/
  manifest.toml       this document; names every other file with its SHA-256
  manifest.sig        JSON {"key_id", "signature"}: Ed25519 over the bytes of manifest.toml
  model.fp32.onnx     variants; at least one
  model.int8.onnx
  model.int8.tflite   optional
  golden.npz          `frames_0…n` uint8 raw frames, `logits` float32 (n, classes) of the fp32 variant
  CARD.md             optional, for people
"""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

SCHEMA = 1
MANIFEST = "manifest.toml"
SIGNATURE = "manifest.sig"
GOLDEN = "golden.npz"
ENGINES = ("onnxruntime", "litert", "reference")
PRECISIONS = ("fp32", "int8")
AUDIT = ("answer_first", "required")
RESIZE = ("area", "bilinear")
NORMALISE = ("per_image", "mean_std")
SIDE_LIMIT = 4096
FRAME_SIDE_MIN = 16
SHA256 = re.compile(r"[0-9a-f]{64}")
LIMIT_BYTES = 256 * 1024


@dataclass(frozen=True)
class InputSpec:
    """What `infer.pre.preprocess` makes of a raw frame. `resize`: how the frame is fitted into height × width."""

    height: int
    width: int
    channels: int = 1
    resize: str = "area"
    normalise: str = "mean_std"
    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class FrameLimits:
    """What a frame must look like to be judged at all; outside of it the answer is `review` with a fault Event.
    Calibrated on the training images (`infer.frame_check.measure`)."""

    mean_min: float = 0.0
    mean_max: float = 255.0
    dark_fraction_max: float = 1.0
    bright_fraction_max: float = 1.0
    sharpness_min: float = 0.0
    flat_fraction_max: float = 1.0
    min_height: int = 16
    min_width: int = 16
    max_height: int = 4096
    max_width: int = 4096


@dataclass(frozen=True)
class Thresholds:
    """Defect score ≥ `reject` is a reject; ≥ `review` a review; below it a pass. `class_min` maps a class to the
    probability above which it is a reject by itself."""

    reject: float
    review: float
    class_min: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GuardLimits:
    """What `decide.guard` allows this bundle to do."""

    max_answer_age_ms: int = 100
    max_answers_per_s: float = 100.0
    run_states: tuple[int, ...] = (6, 16)


@dataclass(frozen=True)
class TrialSpec:
    """`min_agreement`: the share of live parts that this bundle must decide as the one that it follows, 0 to 1; 0 where it is
    meant to decide otherwise. −1: what the device's configuration says."""

    min_agreement: float = -1.0


@dataclass(frozen=True)
class Variant:
    """`tolerance` is the largest allowed |logit − golden logit| on the golden vectors; `min_agreement` the smallest
    share of golden vectors whose decision (arg max) is equal."""

    name: str
    engine: str
    precision: str
    file: str
    tolerance: float
    min_agreement: float = 1.0


@dataclass(frozen=True)
class Manifest:
    name: str
    version: str
    created: str
    classes: tuple[str, ...]
    ok_class: str
    temperature: float
    input: InputSpec
    frame_limits: FrameLimits
    thresholds: Thresholds
    guard: GuardLimits
    variants: tuple[Variant, ...]
    files: Mapping[str, str]
    audit: str = "answer_first"
    trial: TrialSpec = field(default_factory=TrialSpec)
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for a TOML writer; `parse` of its TOML gives an equal Manifest."""
        data: dict[str, Any] = plain(self)
        if self.trial == TrialSpec():
            del data["trial"]  # so that a runtime that does not know it takes the bundle
        return data


def digest(manifest_bytes: bytes) -> str:
    return hashlib.sha256(manifest_bytes).hexdigest()


def parse(manifest_bytes: bytes) -> Manifest:
    """Read `manifest.toml`; ValueError says which field is wrong and what was expected."""
    data = read_toml(manifest_bytes)
    if "kind" in data:
        raise ValueError(f"kind is {data['kind']!r}: a bundle of time series, expected one for a camera")
    sections = {
        "input": InputSpec,
        "frame_limits": FrameLimits,
        "thresholds": Thresholds,
        "guard": GuardLimits,
        "trial": TrialSpec,
    }
    values: dict[str, Any] = {**data, "variants": build_variants(data.get("variants"))}
    for name, kind in sections.items():
        values[name] = build(kind, data.get(name, {}), name)
    manifest: Manifest = build(Manifest, values, "manifest")
    _check(manifest)
    return manifest


def read_toml(manifest_bytes: bytes) -> dict[str, Any]:
    """The document as plain data, of a known schema and size; ValueError otherwise."""
    if len(manifest_bytes) > LIMIT_BYTES:
        raise ValueError(f"manifest of {len(manifest_bytes)} bytes is over the limit of {LIMIT_BYTES}")
    try:
        data = tomllib.loads(manifest_bytes.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"not TOML: {error}") from error
    if data.get("schema") != SCHEMA:
        raise ValueError(f"schema is {data.get('schema')!r}, expected {SCHEMA}")
    return data


def build_variants(variants: Any) -> tuple[Variant, ...]:
    if not isinstance(variants, list) or not variants:
        raise ValueError("variants: expected at least one [[variants]] table")
    return tuple(build(Variant, item, f"variants[{i}]") for i, item in enumerate(variants))


def _check(m: Manifest) -> None:
    if len(m.classes) < 2 or len(set(m.classes)) != len(m.classes):
        raise ValueError(f"classes: expected at least two different names, found {', '.join(m.classes)}")
    if m.ok_class not in m.classes:
        raise ValueError(f"ok_class {m.ok_class!r} is not one of classes {', '.join(m.classes)}")
    if m.audit not in AUDIT:
        raise ValueError(f"audit is {m.audit!r}, expected one of {', '.join(AUDIT)}")
    if not 0.0 <= m.thresholds.review <= m.thresholds.reject <= 1.0:
        raise ValueError(
            f"thresholds: expected 0 <= review <= reject <= 1, found {m.thresholds.review} and {m.thresholds.reject}"
        )
    if not 0 < m.temperature < math.inf:
        raise ValueError(f"temperature is {m.temperature}, expected > 0")
    if unknown := set(m.thresholds.class_min) - set(m.classes):
        raise ValueError(f"thresholds.class_min names unknown classes: {', '.join(sorted(unknown))}")
    for name, least in m.thresholds.class_min.items():
        if not _is_number(least) or not 0.0 <= least <= 1.0:
            raise ValueError(f"thresholds.class_min: {name} is {least!r}, expected a probability from 0 to 1")
    if m.trial.min_agreement != -1.0 and not 0.0 <= m.trial.min_agreement <= 1.0:
        raise ValueError(f"trial: min_agreement is {m.trial.min_agreement}, expected from 0 to 1")
    _check_input(m.input)
    _check_limits(m.frame_limits, m.guard)
    check_files(m.variants, m.files)


def _check_input(spec: InputSpec) -> None:
    if not (0 < spec.height <= SIDE_LIMIT and 0 < spec.width <= SIDE_LIMIT):
        raise ValueError(f"input: height and width must be 1 to {SIDE_LIMIT}, found {spec.height} and {spec.width}")
    if spec.channels not in (1, 3):
        raise ValueError(f"input: channels is {spec.channels}, expected 1 or 3")
    if spec.resize not in RESIZE:
        raise ValueError(f"input: resize is {spec.resize!r}, expected one of {', '.join(RESIZE)}")
    if spec.normalise not in NORMALISE:
        raise ValueError(f"input: normalise is {spec.normalise!r}, expected one of {', '.join(NORMALISE)}")
    if not 0 < spec.std < math.inf or not math.isfinite(spec.mean):
        raise ValueError(f"input: expected a finite mean and std > 0, found {spec.mean} and {spec.std}")


def _check_limits(limits: FrameLimits, guard: GuardLimits) -> None:
    for f in fields(limits):
        if not math.isfinite(getattr(limits, f.name)):
            raise ValueError(f"frame_limits: {f.name} is {getattr(limits, f.name)}, expected a finite number")
    if min(limits.min_height, limits.min_width) < FRAME_SIDE_MIN:
        raise ValueError(f"frame_limits: min_height and min_width must be at least {FRAME_SIDE_MIN}")
    if guard.max_answer_age_ms <= 0 or not 0 < guard.max_answers_per_s < math.inf:
        raise ValueError("guard: max_answer_age_ms and max_answers_per_s must be > 0")
    if not all(isinstance(code, int) and not isinstance(code, bool) for code in guard.run_states):
        raise ValueError(f"guard: run_states must be PackML codes, found {guard.run_states}")


def check_files(variants: tuple[Variant, ...], files: Mapping[str, str]) -> None:
    """ValueError where a variant or a file's digest is not as a bundle needs it."""
    names = [v.name for v in variants]
    if len(set(names)) != len(names):
        raise ValueError(f"variants: the names are not different: {', '.join(names)}")
    for v in variants:
        if not 0 <= v.tolerance < math.inf or not 0 <= v.min_agreement <= 1:
            raise ValueError(f"variant {v.name!r}: expected tolerance >= 0 and min_agreement from 0 to 1")
        if v.engine not in ENGINES or v.precision not in PRECISIONS:
            raise ValueError(f"variant {v.name!r}: engine {v.engine!r} or precision {v.precision!r} is not known")
        if v.file not in files:
            raise ValueError(f"variant {v.name!r}: its file {v.file!r} has no digest in [files]")
    for name, sha256 in files.items():
        if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
            raise ValueError(f"files: {name!r} needs its SHA-256 as 64 hex digits, found {sha256!r}")
        if name in (MANIFEST, SIGNATURE):
            raise ValueError(f"files: {name} cannot hold its own digest")
        if not name or name.startswith(".") or "/" in name or "\\" in name or "\0" in name:
            raise ValueError(f"files: {name!r} is not a plain file name")


def build(kind: type, data: Any, where: str) -> Any:
    """A dataclass from a table, every key and type checked; ValueError says which is wrong."""
    if not isinstance(data, dict):
        raise ValueError(f"{where}: expected a table, found {type(data).__name__}")
    known = {f.name: f for f in fields(kind)}
    if unknown := set(data) - set(known):
        raise ValueError(f"{where}: unknown key {sorted(unknown)[0]!r}, expected one of {', '.join(known)}")
    values = {}
    for name, value in data.items():
        expected = str(known[name].type)
        if isinstance(value, list):
            value = tuple(value)
        if expected == "float" and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        python = {"str": str, "int": int, "float": float}.get(expected)
        if python and (not isinstance(value, python) or isinstance(value, bool)):
            raise ValueError(f"{where}: {name} must be {expected}, found {value!r}")
        if expected.startswith("tuple") and not isinstance(value, tuple):
            raise ValueError(f"{where}: {name} must be a list, found {value!r}")
        if expected == "tuple[float, ...]":
            value = _floats(value, f"{where}: {name}")
        if expected == "tuple[str, ...]" and not all(isinstance(item, str) for item in value):
            raise ValueError(f"{where}: {name} must be a list of texts, found {value!r}")
        if expected.startswith("Mapping") and not isinstance(value, dict):
            raise ValueError(f"{where}: {name} must be a table, found {value!r}")
        values[name] = value
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {str(error).split(') ', 1)[-1]}") from error


def _floats(values: Any, where: str) -> tuple[float, ...]:
    if wrong := [v for v in values if not _is_number(v)]:
        raise ValueError(f"{where} must be a list of numbers, found {wrong[0]!r}")
    return tuple(float(v) for v in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return value
