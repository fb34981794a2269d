"""Manifests: TOML and back without loss, and an error that names the field for whatever is wrong."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.wire import manifest as wire
from edge_runtime.wire.manifest import FrameLimits, GuardLimits, InputSpec, Manifest, Thresholds, Variant

SHA = "0" * 64
unit = st.floats(0, 1)
positive = st.floats(1e-3, 1e6)
names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
plain_files = st.from_regex(r"[a-z][a-z0-9_.-]{0,12}\.onnx", fullmatch=True)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    classes = tuple(draw(st.lists(names, min_size=2, max_size=5, unique=True)))
    review, reject = sorted((draw(unit), draw(unit)))
    files = draw(st.lists(plain_files, min_size=1, max_size=3, unique=True))
    return Manifest(
        name=draw(names),
        version=draw(names),
        created=draw(names),
        classes=classes,
        ok_class=draw(st.sampled_from(classes)),
        temperature=draw(positive),
        input=InputSpec(
            draw(st.integers(1, 4096)), draw(st.integers(1, 4096)), draw(st.sampled_from([1, 3])),
            draw(st.sampled_from(wire.RESIZE)), draw(st.sampled_from(wire.NORMALISE)),
            draw(st.floats(-255, 255)), draw(positive),
        ),
        frame_limits=FrameLimits(draw(positive), draw(positive), draw(unit), draw(unit), draw(unit), draw(unit)),
        thresholds=Thresholds(reject, review, draw(st.dictionaries(st.sampled_from(classes), unit))),
        guard=GuardLimits(draw(st.integers(1, 10**6)), draw(positive), tuple(draw(st.lists(st.integers(1, 17))))),
        variants=tuple(
            Variant(f"v{i}", draw(st.sampled_from(wire.ENGINES)), draw(st.sampled_from(wire.PRECISIONS)), f,
                    draw(positive), draw(unit))
            for i, f in enumerate(files)
        ),
        files={**dict.fromkeys(files, SHA), wire.GOLDEN: SHA},
        audit=draw(st.sampled_from(wire.AUDIT)),
        training=draw(st.dictionaries(names, st.integers(-(2**53), 2**53) | names | unit, max_size=3)),
        metrics=draw(st.dictionaries(names, unit, max_size=3)),
    )  # fmt: skip


@given(manifests())
def test_toml_and_back(m: Manifest) -> None:
    assert wire.parse(tomli_w.dumps(m.to_dict()).encode()) == m


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):
        wire.parse(raw)


GOOD: dict[str, Any] = Manifest(
    name="m", version="1", created="now", classes=("ok", "bad"), ok_class="ok", temperature=1.0,
    input=InputSpec(8, 8), frame_limits=FrameLimits(), thresholds=Thresholds(0.5, 0.3, {"bad": 0.9}),
    guard=GuardLimits(), variants=(Variant("v", "onnxruntime", "fp32", "m.onnx", 0.1),),
    files={"m.onnx": SHA, "golden.npz": SHA},
).to_dict()  # fmt: skip


def parse_changed(path: str, value: Any) -> Manifest:
    """`path` a.b.0.c into GOOD; value None removes it."""
    data = copy.deepcopy(GOOD)
    at: Any = data
    *way, last = path.split("/")
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at[step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return wire.parse(tomli_w.dumps(data).encode())


WRONG = [
    ("schema", 2, "schema is 2, expected 1"),
    ("name", 3, "name must be str"),
    ("name", None, "name"),
    ("classes", "ok", "classes must be a list"),
    ("classes", ["ok", 3], "classes must be a list of texts"),
    ("classes", ["ok"], "classes: expected at least two"),
    ("classes", ["ok", "ok"], "classes: expected at least two different"),
    ("ok_class", "fine", "ok_class 'fine' is not one of classes ok, bad"),
    ("temperature", 0.0, "temperature is 0.0"),
    ("temperature", float("nan"), "temperature is nan"),
    ("temperature", float("inf"), "temperature is inf"),
    ("temperature", True, "temperature must be float"),
    ("audit", "never", "audit is 'never', expected one of answer_first, required"),
    ("colour", "red", "unknown key 'colour'"),
    ("training", [1], "training must be a table"),
    ("input/height", 0, "input: height and width"),
    ("input/width", 5000, "input: height and width"),
    ("input/height", "x", "input: height must be int"),
    ("input/height", None, "input: missing 1 required positional argument: 'height'"),
    ("input/channels", 2, "input: channels is 2, expected 1 or 3"),
    ("input/resize", "cubic", "input: resize is 'cubic', expected one of area, bilinear"),
    ("input/normalise", "none", "input: normalise is 'none'"),
    ("input/std", 0.0, "std > 0"),
    ("input/mean", float("inf"), "finite mean"),
    ("input/dpi", 3, "input: unknown key 'dpi'"),
    ("input", 3, "input: expected a table, found int"),
    ("frame_limits/min_height", 8, "min_height and min_width must be at least 16"),
    ("frame_limits/mean_min", float("nan"), "frame_limits: mean_min is nan"),
    ("thresholds/reject", 1.5, "0 <= review <= reject <= 1"),
    ("thresholds/review", 0.6, "0 <= review <= reject <= 1"),
    ("thresholds/reject", float("nan"), "0 <= review <= reject <= 1"),
    ("thresholds/class_min", {"worse": 0.1}, "unknown classes: worse"),
    ("thresholds/class_min", {"bad": "x"}, "class_min: bad is 'x'"),
    ("thresholds/class_min", {"bad": 1.5}, "class_min: bad is 1.5"),
    ("thresholds/class_min", 3, "class_min must be a table"),
    ("guard/max_answer_age_ms", 0, "guard: max_answer_age_ms"),
    ("guard/max_answers_per_s", float("inf"), "guard: max_answer_age_ms and max_answers_per_s"),
    ("guard/run_states", ["x"], "guard: run_states"),
    ("guard/run_states", 6, "guard: run_states must be a list"),
    ("variants", [], "variants: expected at least one"),
    ("variants/0/engine", "tensorrt", "engine 'tensorrt'"),
    ("variants/0/precision", "fp8", "precision 'fp8'"),
    ("variants/0/file", "other.onnx", "'other.onnx' has no digest"),
    ("variants/0/tolerance", float("nan"), "tolerance >= 0"),
    ("variants/0/tolerance", -1.0, "tolerance >= 0"),
    ("variants/0/min_agreement", 1.1, "min_agreement from 0 to 1"),
    ("variants/0/tolerance", None, "variants[0]: missing 1 required positional argument: 'tolerance'"),
    ("variants", [GOOD["variants"][0], GOOD["variants"][0]], "names are not different"),
    ("files/m.onnx", "abc", "files: 'm.onnx' needs its SHA-256"),
    ("files/m.onnx", 3, "files: 'm.onnx' needs its SHA-256"),
    ("files/..", SHA, "files: '..' is not a plain file name"),
    ("files", {**GOOD["files"], "a/b": SHA}, "'a/b' is not a plain file name"),
    ("files", {**GOOD["files"], "a\\b": SHA}, "is not a plain file name"),
    ("files/manifest.toml", SHA, "manifest.toml cannot hold its own digest"),
]


@pytest.mark.parametrize(("path", "value", "told"), WRONG, ids=[f"{p}={v!r:.12}" for p, v, _ in WRONG])
def test_what_is_wrong_is_named(path: str, value: Any, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_changed(path, value)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_good_one_is_good() -> None:
    assert parse_changed("temperature", 2).temperature == 2.0


def test_size_limit_and_digest() -> None:
    with pytest.raises(ValueError, match="over the limit"):
        wire.parse(b"#" * (wire.LIMIT_BYTES + 1))
    assert wire.digest(b"x") == hashlib.sha256(b"x").hexdigest()
