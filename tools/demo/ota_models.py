"""Three models for `gudgeon demo ota`, made of the shipped one: a cautious one that misses defects, the shipped one itself as the
better one, and a bad one that looks well until a part has a bright spot: then its engine gives NaN.
"""

from __future__ import annotations

import hashlib
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tomli_w
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_runtime.infer import bundle as bundles
from edge_runtime.infer.pre import preprocess
from edge_runtime.update.sign import sign_bundle
from edge_runtime.wire import manifest as wire

CAUTIOUS_REJECT = 0.94  # a quarter of the rendered defects have a lower score
BRIGHT = 4.6  # in standard deviations of a picture: one part in eight has such a spot
LEAST_AGREEMENT = 0.8  # of two of these models, which are meant to differ on defects

Change = Callable[[Path, dict[str, Any]], None]


def cautious(bundle: Path, out: Path) -> Path:
    """The one before: it lets through what it is not sure of."""

    def change(folder: Path, manifest: dict[str, Any]) -> None:
        manifest["thresholds"] |= {"reject": CAUTIOUS_REJECT, "review": CAUTIOUS_REJECT}

    return _copy(bundle, out, "1.0.0", change)


def better(bundle: Path, out: Path) -> Path:
    """The shipped model."""
    return _copy(bundle, out, "2.0.0", lambda folder, manifest: None)


def bad(bundle: Path, out: Path) -> Path:
    """NaN for pictures with a bright spot. Its golden vectors have none, so they say nothing of it."""
    return _copy(bundle, out, "3.0.0", _break)


def _copy(bundle: Path, out: Path, version: str, change: Change) -> Path:
    shutil.copytree(bundle, out, ignore=shutil.ignore_patterns(wire.SIGNATURE))
    manifest = tomllib.loads((out / wire.MANIFEST).read_text())
    manifest |= {"version": version, "trial": {"min_agreement": LEAST_AGREEMENT}}
    change(out, manifest)
    manifest["files"] = {
        n: hashlib.sha256((out / n).read_bytes()).hexdigest() for n in manifest["files"] if (out / n).exists()
    }
    (out / wire.MANIFEST).write_text(tomli_w.dumps(manifest))
    sign_bundle(out)
    return out


def _break(folder: Path, manifest: dict[str, Any]) -> None:
    kept = [v for v in manifest["variants"] if v["file"].endswith(".onnx")]
    for variant in manifest["variants"]:
        if variant in kept:
            model = onnx.load(folder / variant["file"])
            _nan_where_bright(model)
            onnx.save(model, folder / variant["file"])
        else:
            (folder / variant["file"]).unlink()
    manifest["variants"] = kept
    golden = bundles.load_golden(folder, len(manifest["classes"]))
    spec = wire.build(wire.InputSpec, manifest["input"], "input")
    kept_frames = [i for i, frame in enumerate(golden.frames) if brightest(frame, spec) < BRIGHT]
    arrays = {f"frames_{n}": golden.frames[i] for n, i in enumerate(kept_frames)}
    np.savez_compressed(folder / wire.GOLDEN, logits=golden.logits[kept_frames], **arrays)  # type: ignore[arg-type]


def brightest(frame: NDArray[np.uint8], spec: wire.InputSpec) -> float:
    """What `bad` looks at."""
    return float(preprocess(frame, spec).max())


def _nan_where_bright(model: onnx.ModelProto) -> None:
    graph = model.graph
    start, end = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        node.output[:] = ["spot_logits" if name == end else name for name in node.output]
    constants = {"spot_limit": BRIGHT, "spot_nan": np.nan, "spot_zero": 0.0}
    graph.initializer.extend(numpy_helper.from_array(np.float32(value), name) for name, value in constants.items())
    graph.node.extend(
        [
            helper.make_node("ReduceMax", [start], ["spot_max"], keepdims=0),
            helper.make_node("Greater", ["spot_max", "spot_limit"], ["spot_there"]),
            helper.make_node("Where", ["spot_there", "spot_nan", "spot_zero"], ["spot_added"]),
            helper.make_node("Add", ["spot_logits", "spot_added"], [end]),
        ]
    )
