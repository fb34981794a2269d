"""The contract of an Engine, run over every implementation that is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import BundleError
from edge_runtime.infer.engine import Engine
from edge_runtime.infer.litert import LiteRtEngine
from edge_runtime.infer.onnx import OnnxEngine
from edge_runtime.infer.pre import preprocess
from edge_runtime.infer.reference import ReferenceEngine
from edge_runtime.tests.bundles import SIDE, SPEC, make_frame, model, model_int8


def onnx_engine(folder: Path) -> Engine:
    (folder / "m.onnx").write_bytes(model(2, 0))
    return OnnxEngine(folder / "m.onnx", "v")


def onnx_int8(folder: Path) -> Engine:
    (folder / "m.onnx").write_bytes(model_int8(2, 0))
    return OnnxEngine(folder / "m.onnx", "v")


def reference(folder: Path) -> Engine:
    (folder / "m.onnx").write_bytes(model(2, 0))
    return ReferenceEngine(folder / "m.onnx", "v")


def litert(folder: Path) -> Engine:
    pytest.importorskip("ai_edge_litert")
    from edge_runtime.infer.tests.tiny_tflite import spot_model

    (folder / "m.tflite").write_bytes(spot_model("float32"))
    return LiteRtEngine(folder / "m.tflite", "v")


def litert_int8(folder: Path) -> Engine:
    pytest.importorskip("ai_edge_litert")
    from edge_runtime.infer.tests.tiny_tflite import spot_model

    (folder / "m.tflite").write_bytes(spot_model("int8"))
    return LiteRtEngine(folder / "m.tflite", "v")


ENGINES: dict[str, Callable[[Path], Engine]] = {
    "onnxruntime": onnx_engine,
    "onnxruntime int8": onnx_int8,
    "reference": reference,
    "litert": litert,
    "litert int8": litert_int8,
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    engine = ENGINES[request.param](tmp_path)
    assert engine.name == request.param.split()[0]
    assert engine.variant == "v"
    return engine


def test_logits_of_one_frame(engine: Engine) -> None:
    for defect in (False, True, False):
        y = engine.infer(preprocess(make_frame(defect, 5), SPEC))
        assert y.shape == (2,)
        assert y.dtype == np.float32
        assert bool(y.argmax()) == defect


def test_the_result_belongs_to_the_caller(engine: Engine) -> None:
    good, bad = preprocess(make_frame(False, 5), SPEC), preprocess(make_frame(True, 5), SPEC)
    first = engine.infer(good)
    kept = first.copy()
    engine.infer(bad)
    assert np.array_equal(first, kept)
    first += 100
    assert np.array_equal(engine.infer(good), kept)


def test_the_input_is_not_changed(engine: Engine) -> None:
    x = preprocess(make_frame(True, 5), SPEC)
    before = x.copy()
    engine.infer(x)
    assert np.array_equal(x, before)


@pytest.mark.parametrize("shape", [(1, 1, SIDE, SIDE + 1), (1, 3, SIDE, SIDE), (2, 1, SIDE, SIDE), (SIDE, SIDE), ()])
def test_a_wrong_shape_is_a_bundle_error(engine: Engine, shape: tuple[int, ...]) -> None:
    with pytest.raises(BundleError) as caught:
        engine.infer(np.zeros(shape, np.float32))
    assert "\n" not in str(caught.value)
    assert str(tuple(shape)) in str(caught.value)


def test_close(engine: Engine) -> None:
    engine.close()


@pytest.mark.parametrize("kind", [OnnxEngine, ReferenceEngine, LiteRtEngine])
@pytest.mark.parametrize("content", [b"", b"not a model", model(2, 0)[:200]])
def test_a_file_that_is_no_model_is_a_bundle_error(tmp_path: Path, kind: type, content: bytes) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(BundleError, match="m: ") as caught:
        kind(tmp_path / "m", "v")
    assert "\n" not in str(caught.value)
