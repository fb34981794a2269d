"""From frame to input and from logits to judgement."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.infer import bundle as bundles
from edge_runtime.infer.post import PASS, REJECT, REVIEW, judge, softmax
from edge_runtime.infer.pre import NORMALISE, RESIZE, preprocess
from edge_runtime.tests.bundles import make_bundle
from edge_runtime.wire import manifest as wire
from edge_runtime.wire.manifest import InputSpec, Manifest, Thresholds


@given(
    st.integers(1, 40), st.integers(1, 40), st.booleans(), st.sampled_from([1, 3]),
    st.sampled_from(sorted(RESIZE)), st.sampled_from(NORMALISE), st.integers(0, 2**31),
)  # fmt: skip
def test_any_frame_becomes_the_declared_shape(
    height: int, width: int, colour: bool, channels: int, resize: str, normalise: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (height, width, 3) if colour else (height, width), dtype=np.uint8)
    before = frame.copy()
    x = preprocess(frame, InputSpec(12, 9, channels, resize, normalise, 100.0, 50.0))
    assert x.shape == (1, channels, 12, 9)
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    assert np.isfinite(x).all()
    assert np.array_equal(frame, before)


def test_area_resizing_counts_every_pixel_once() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (64, 32), dtype=np.uint8)
    x = preprocess(frame, InputSpec(16, 8, mean=0.0, std=1.0))
    assert np.abs(x[0, 0] - frame.reshape(16, 4, 8, 4).mean(axis=(1, 3))).max() <= 1.0


def test_per_image_normalising_forgets_the_exposure() -> None:
    spec = InputSpec(16, 16, normalise="per_image")
    frame = np.random.default_rng(1).integers(40, 90, (16, 16), dtype=np.uint8)
    x = preprocess(frame, spec)
    assert abs(float(x.mean())) < 1e-3
    assert float(x.std()) == pytest.approx(1.0, abs=1e-3)
    assert np.allclose(x, preprocess((frame * 2 + 10).astype(np.uint8), spec), atol=1e-3)


def test_a_flat_frame_is_not_amplified() -> None:
    x = preprocess(np.full((16, 16), 77, np.uint8), InputSpec(16, 16, normalise="per_image"))
    assert np.abs(x).max() < 1e-3


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4), np.float32),
        np.zeros(16, np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
)
def test_what_is_no_frame_is_refused(frame: object) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        preprocess(frame, InputSpec(4, 4))  # type: ignore[arg-type]


def test_the_manifest_knows_the_same_names() -> None:
    assert (set(wire.RESIZE), set(wire.NORMALISE)) == (set(RESIZE), set(NORMALISE))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    path: Path = make_bundle(tmp_path_factory.mktemp("post") / "b", classes=("ok", "spot", "pit"))
    return bundles.load(path).manifest


logits = st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3)


@given(values=logits, cuts=st.tuples(st.floats(0, 1), st.floats(0, 1)), least=st.none() | st.floats(0, 1))
def test_the_judgement_follows_the_thresholds(
    manifest: Manifest, values: list[float], cuts: tuple[float, float], least: float | None
) -> None:
    review, reject = sorted(cuts)
    m = replace(manifest, thresholds=Thresholds(reject, review, {} if least is None else {"pit": least}))
    j = judge(np.array(values, np.float32), m)
    assert 0.0 <= j.score <= 1.0
    assert sum(j.probabilities) == pytest.approx(1.0)
    assert j.score == pytest.approx(1.0 - j.probabilities[0])
    by_class = least is not None and j.probabilities[2] >= least
    wanted = REJECT if by_class or j.score >= reject else REVIEW if j.score >= review else PASS
    assert j.result == wanted
    assert (j.label == "ok") == (wanted == PASS)
    assert j.reason


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_never_guessed_at(manifest: Manifest, bad: float) -> None:
    j = judge(np.array([9.0, bad, 0.0], np.float32), manifest)
    assert (j.result, j.score) == (REVIEW, 1.0)
    assert "not finite" in j.reason


def test_a_class_minimum_on_the_ok_class_is_no_reject(manifest: Manifest) -> None:
    m = replace(manifest, thresholds=Thresholds(0.5, 0.3, {"ok": 0.1}))
    assert judge(np.array([9.0, 0.0, 0.0], np.float32), m).result == PASS


def test_a_higher_temperature_is_less_sure() -> None:
    z = np.array([2.0, 0.0], np.float32)
    sure = [float(softmax(z, t)[0]) for t in (0.5, 1.0, 2.0, 8.0)]
    assert sure == sorted(sure, reverse=True)
    assert sure[1] == pytest.approx(1 / (1 + np.exp(-2)))
    assert softmax(np.array([1e4, 0.0], np.float32), 1.0).tolist() == [1.0, 0.0]
