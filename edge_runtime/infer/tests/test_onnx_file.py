"""The `.onnx` reader: hostile bytes end in BundleError, never in anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_runtime.errors import BundleError
from edge_runtime.infer import onnx_file
from edge_runtime.infer.tests.tiny_onnx import model, node
from edge_runtime.tests.bundles import model as bundle_model

WHOLE = bundle_model(2, 0)


def test_what_is_read(tmp_path: Path) -> None:
    weights: dict[str, NDArray[Any]] = {
        "w": np.arange(6, dtype=np.float32).reshape(3, 2),
        "n": np.array([-3, 2**40], np.int64),
    }
    nodes = [node("Thing", ["x", "w"], ["y"], f=-1.5, i=-7, s="text", t=weights["w"], fs=[0.5, 2.0], ints=[-1, 3])]
    (tmp_path / "m.onnx").write_bytes(model(nodes, weights, (1, "n", 4)))
    graph = onnx_file.read(tmp_path / "m.onnx")
    assert (graph.input, graph.output, graph.input_shape) == ("x", "y", (1, None, 4))
    assert all(
        np.array_equal(graph.initialisers[k], v) and graph.initialisers[k].dtype == v.dtype for k, v in weights.items()
    )
    (thing,) = graph.nodes
    assert (thing.op, thing.inputs, thing.outputs) == ("Thing", ("x", "w"), ("y",))
    tensor = thing.attributes.pop("t")
    assert thing.attributes == {"f": -1.5, "i": -7, "s": "text", "fs": [0.5, 2.0], "ints": [-1, 3]}
    assert np.array_equal(tensor, weights["w"])


def read_bytes(folder: Path, content: bytes) -> None:
    (folder / "m.onnx").write_bytes(content)
    try:
        onnx_file.read(folder / "m.onnx")
    except BundleError as error:
        assert "m.onnx" in str(error)  # noqa: PT017


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@given(st.binary(max_size=300))
@example(b"\x38\x01")  # the graph is a number
@example(b"")
def test_any_bytes(folder: Path, content: bytes) -> None:
    read_bytes(folder, content)


@settings(max_examples=200)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_any_changed_byte_and_any_cut(folder: Path, at: int, byte: int) -> None:
    read_bytes(folder, WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :])
    read_bytes(folder, WHOLE[:at])
