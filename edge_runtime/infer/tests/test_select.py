"""Choosing the engine: golden vectors first, then speed on this board, measured once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.errors import BundleError, MissingExtraError
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer import select
from edge_runtime.infer.bundle import Bundle
from edge_runtime.infer.engine import Engine
from edge_runtime.tests.bundles import make_bundle
from edge_runtime.wire.manifest import Variant

NAMES = ("a", "b", "c")


@dataclass
class Bench:
    """Engines with a given speed on a clock that only they move; `offset` is added to the right logits."""

    bundle: Bundle
    cost_us: dict[str, int] = field(default_factory=lambda: {"a": 300, "b": 100, "c": 200})
    offset: dict[str, float] = field(default_factory=dict)
    now_ns: int = 0
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def timer(self) -> int:
        return self.now_ns

    def open(self, bundle: Bundle, variant: Variant) -> Engine:
        self.opened.append(variant.name)
        if variant.name not in self.cost_us:
            raise MissingExtraError("its engine is not installed")
        return FakeEngine(self, variant.name, bundle)


class FakeEngine:
    name = "fake"

    def __init__(self, bench: Bench, variant: str, bundle: Bundle) -> None:
        self.variant, self._bench = variant, bench
        keys = [x.tobytes() for x in bundle.golden_inputs()]
        self._answers = dict(zip(keys, bundle.golden.logits, strict=True))

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        self._bench.now_ns += self._bench.cost_us[self.variant] * 1000
        shifted = self._answers[x.tobytes()] + self._bench.offset.get(self.variant, 0.0)
        return np.asarray(shifted, dtype=np.float32)

    def close(self) -> None:
        self._bench.closed.append(self.variant)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "engines.json"


def load(folder: Path, seed: int = 0) -> Bundle:
    variants = tuple(Variant(n, "onnxruntime", "fp32", "model.fp32.onnx", 0.1) for n in NAMES)
    return bundles.load(make_bundle(folder / f"b{seed}", seed=seed, variants=variants))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench(load(tmp_path))
    monkeypatch.setattr(select, "open_engine", bench.open)
    return bench


def test_the_fastest_is_taken_and_the_others_closed(bench: Bench, cache: Path) -> None:
    choice = select.choose(bench.bundle, cache, timer=bench.timer)
    assert choice.engine.variant == "b"
    assert choice.latency_us == {"a": 300.0, "b": 100.0, "c": 200.0}
    assert (choice.refused, choice.cached) == ((), False)
    assert sorted(bench.closed) == ["a", "c"]


def test_a_variant_that_fails_its_vectors_is_refused_and_reported(bench: Bench, cache: Path) -> None:
    bench.offset["b"] = 0.2
    choice = select.choose(bench.bundle, cache, timer=bench.timer)
    assert choice.engine.variant == "c"
    (refusal,) = choice.refused
    assert refusal.variant == "b"
    assert "differ by 0.200, more than the tolerance 0.100" in refusal.reason
    assert "b" not in choice.latency_us
    again = select.choose(bench.bundle, cache, timer=bench.timer)
    assert (again.cached, again.refused) == (True, choice.refused)


@pytest.mark.parametrize("offset", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bench: Bench, cache: Path, offset: float) -> None:
    bench.offset["b"] = offset
    assert "not finite" in select.choose(bench.bundle, cache, timer=bench.timer).refused[0].reason


def test_an_engine_that_is_not_installed_is_reported(bench: Bench, cache: Path) -> None:
    del bench.cost_us["b"]
    choice = select.choose(bench.bundle, cache, timer=bench.timer)
    assert choice.engine.variant == "c"
    assert choice.refused[0].reason == "its engine is not installed"


def test_nothing_passes(bench: Bench, cache: Path) -> None:
    bench.offset = dict.fromkeys(NAMES, 9.0)
    with pytest.raises(BundleError, match=r"no variant can run on this board: a: .*; b: .*; c: "):
        select.choose(bench.bundle, cache, timer=bench.timer)
    assert not cache.exists()


def test_the_second_start_measures_nothing(bench: Bench, cache: Path) -> None:
    first = select.choose(bench.bundle, cache, timer=bench.timer)
    bench.opened.clear()
    bench.now_ns = 0
    second = select.choose(bench.bundle, cache, timer=bench.timer)
    assert second.cached
    assert (second.engine.variant, second.latency_us) == (first.engine.variant, first.latency_us)
    assert bench.opened == ["b"]
    assert bench.now_ns == 100_000  # one golden vector


def test_a_changed_digest_measures_again(bench: Bench, cache: Path, tmp_path: Path) -> None:
    select.choose(bench.bundle, cache, timer=bench.timer)
    other = load(tmp_path, seed=1)
    assert other.digest != bench.bundle.digest
    assert not select.choose(other, cache, timer=bench.timer).cached
    assert select.choose(bench.bundle, cache, timer=bench.timer).cached


@pytest.mark.parametrize("what", ["board", "engine_versions"])
def test_another_board_or_engine_version_measures_again(
    bench: Bench, cache: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    select.choose(bench.bundle, cache, timer=bench.timer)
    monkeypatch.setattr(select, what, lambda: "another")
    assert not select.choose(bench.bundle, cache, timer=bench.timer).cached


def test_a_cached_variant_that_went_wrong_is_measured_again(bench: Bench, cache: Path) -> None:
    select.choose(bench.bundle, cache, timer=bench.timer)
    bench.offset["b"] = 1.0
    choice = select.choose(bench.bundle, cache, timer=bench.timer)
    assert (choice.cached, choice.engine.variant) == (False, "c")


DAMAGE: list[Callable[[str], str]] = [
    lambda text: "",
    lambda text: text[:-20],
    lambda text: "[1, 2]",
    lambda text: json.dumps(dict.fromkeys(json.loads(text), "x")),
    lambda text: json.dumps({k: {"variant": "b"} for k in json.loads(text)}),
    lambda text: json.dumps({k: {**v, "refused": [{"who": 1}]} for k, v in json.loads(text).items()}),
    lambda text: json.dumps({k: {**v, "variant": "gone"} for k, v in json.loads(text).items()}),
    lambda text: json.dumps({k: {**v, "latency_us": []} for k, v in json.loads(text).items()}),
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_measured_again(bench: Bench, cache: Path, damage: Callable[[str], str]) -> None:
    select.choose(bench.bundle, cache, timer=bench.timer)
    cache.write_text(damage(cache.read_text()))
    choice = select.choose(bench.bundle, cache, timer=bench.timer)
    assert (choice.cached, choice.engine.variant) == (False, "b")
    assert select.choose(bench.bundle, cache, timer=bench.timer).cached


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    choice = select.choose(bench.bundle, tmp_path / "file" / "engines.json", timer=bench.timer)
    assert choice.engine.variant == "b"


def test_the_cache_is_bounded(cache: Path) -> None:
    for i in range(40):
        select._write_cache(cache, f"key{i}", {})
    assert list(json.loads(cache.read_text())) == [f"key{i}" for i in range(8, 40)]


class TestRealEngines:
    """The same road with what is installed here."""

    def test_int8_and_fp32_pass_their_vectors(self, tmp_path: Path, cache: Path) -> None:
        choice = select.choose(bundles.load(make_bundle(tmp_path / "b")), cache)
        assert set(choice.latency_us) == {"fp32", "int8"}
        assert choice.refused == ()

    def test_the_reference_on_demand(self, tmp_path: Path, cache: Path) -> None:
        choice = select.choose(bundles.load(make_bundle(tmp_path / "b")), cache, "reference")
        assert (choice.engine.name, choice.engine.variant) == ("reference", "reference-fp32")

    def test_an_engine_that_the_bundle_has_no_variant_for(self, tmp_path: Path, cache: Path) -> None:
        with pytest.raises(BundleError, match="no variant for engine 'litert'"):
            select.choose(bundles.load(make_bundle(tmp_path / "b")), cache, "litert")

    def test_a_model_with_other_classes_than_the_manifest_is_refused(self, tmp_path: Path, cache: Path) -> None:
        three = make_bundle(tmp_path / "three", classes=("ok", "spot", "pit"), int8=False)
        b = bundles.load(make_bundle(tmp_path / "b"))
        mixed = Bundle(three, b.manifest, b.digest, b.golden)
        variant = Variant("v", "onnxruntime", "fp32", "model.fp32.onnx", 0.1)
        engine = select.open_engine(mixed, variant)
        told = select.check_golden(mixed, variant, engine, mixed.golden_inputs())
        assert told == "the engine gives (3,) values for an input, expected 2"

    def test_the_board_and_the_engines_have_names(self) -> None:
        assert select.board()
        assert "onnxruntime=" in select.engine_versions()
