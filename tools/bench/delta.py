"""`gudgeon bench delta`: what updates of our bundles and our runtime cost over the wire; each delta is undone and checked.

The shipped surface bundle is fine-tuned for real, its last layer or all of it, and quantised again (in the training environment:
`make setup-train`); the runtime is two commits of this repository, packed as `gudgeon pack runtime` packs Gudgeon's own wheel.
The wheels of dependencies that did not change are copied and cost nothing, so they are left out.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tomli_w
from rich.table import Table

from edge_runtime.delta.making import choose, make, zstd_bytes
from edge_runtime.errors import UsageError
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer.onnx import OnnxEngine
from edge_runtime.update.fetch.artifact import undo_apart
from edge_runtime.wire import archive, manifest
from tools.pipeline import launch, pack
from tools.release.wheel import build_wheel

PICTURES, SEED = 240, 77
WIDE = 50
PARTS = {"both": (pack.FP32, pack.INT8), "int8": (pack.INT8,)}


class Case(NamedTuple):
    name: str
    old: bytes
    new: bytes


def run(folder: Path, bundle: Path, steps: int, commits: tuple[str, str] | None = None) -> dict[str, Any]:
    rows = [
        _row(folder / str(i), case)
        for i, case in enumerate([*models(folder, bundle, steps), *runtimes(folder, commits)])
    ]
    return {"bench": "delta", "bundle": str(bundle), "steps": steps, "pictures": PICTURES, "rows": rows}


def models(folder: Path, bundle: Path, steps: int) -> Iterator[Case]:
    """The shipped bundle against what becomes of it."""
    data = folder / "parts"
    render = ["-m", "firmware_sim.images_cli", "--out", str(data), "--n", str(PICTURES), "--seed", str(SEED)]
    _started([sys.executable, *render])
    tuned = {}
    for what in ("none", "head", "full"):
        tuned[what] = folder / what
        options = ["--bundle", bundle, "--data", data, "--out", tuned[what], "--what", what, "--steps", steps]
        _started([str(launch.train_python()), "-m", "tools.bench.finetune", *map(str, options)])
    old = {kind: release(folder / f"old-{kind}", bundle, bundle, files) for kind, files in PARTS.items()}
    for name, what, kind in (
        ("head-only fine-tune", "head", "both"),
        ("full fine-tune", "full", "both"),
        ("int8 quantised again", "none", "int8"),
        ("int8 of the full fine-tune", "full", "int8"),
    ):
        yield Case(name, old[kind], release(folder / f"new-{what}-{kind}", bundle, tuned[what], PARTS[kind]))


def release(out: Path, bundle: Path, weights: Path, files: tuple[str, ...]) -> bytes:
    """The artifact of `bundle` with the weights of `weights`: their golden answers and digests with them."""
    out.mkdir()
    for name in files:
        shutil.copyfile(weights / name, out / name)
    shutil.copyfile(bundle / pack.CARD, out / pack.CARD)
    loaded = bundles.load(bundle)
    engine = OnnxEngine(weights / pack.FP32, "fp32")
    logits = np.stack([engine.infer(x) for x in loaded.golden_inputs()])
    frames: dict[str, Any] = {f"frames_{i}": frame for i, frame in enumerate(loaded.golden.frames)}
    np.savez_compressed(out / manifest.GOLDEN, logits=logits, **frames)
    told = manifest.read_toml((bundle / manifest.MANIFEST).read_bytes())
    told["variants"] = [variant for variant in told["variants"] if variant["file"] in files]
    told["files"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}
    (out / manifest.MANIFEST).write_text(tomli_w.dumps(told))
    return _packed(out)


def runtimes(folder: Path, commits: tuple[str, str] | None) -> Iterator[Case]:
    """Gudgeon's own wheel out of two commits: one after the other, and further apart."""
    if commits is None:
        touching = _git("log", f"-{WIDE}", "--no-merges", "--format=%h", "--", "edge_runtime").split()
        if len(touching) < 2:
            return
        yield from runtimes(folder, (touching[1], touching[0]))
        commits = touching[-1], touching[0]
    old, new = (_runtime(folder / f"runtime-{commit}", commit) for commit in commits)
    count = len(_git("log", "--no-merges", "--format=%h", f"{commits[0]}..{commits[1]}", "--", "edge_runtime").split())
    yield Case(f"runtime release, {count} commit{'s' if count != 1 else ''} apart", old, new)


def _runtime(out: Path, commit: str) -> bytes:
    if not out.exists():
        out.mkdir()
        source = out.with_name(f"{out.name}-source")
        data = subprocess.run(
            ["git", "archive", commit, "edge_runtime"], cwd=launch.REPOSITORY, capture_output=True, check=True
        )
        source.mkdir()
        subprocess.run(
            ["tar", "-x", "-C", str(source)], input=data.stdout, check=True
        )  # no filters before Python 3.11.4
        wheel = build_wheel(out, "1.0", source / "edge_runtime")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        told = {"schema": 1, "kind": "runtime", "name": "gudgeon", "version": commit, "files": {wheel.name: digest}}
        (out / manifest.MANIFEST).write_text(tomli_w.dumps(told))
    return _packed(out)


def _row(folder: Path, case: Case) -> dict[str, Any]:
    """All that there is from the old to the new, the one that the cloud would publish, and what undoing it takes."""
    folder.mkdir()
    packed = make(None, case.new)
    deltas = make(case.old, case.new)
    sizes = {name: len(data) for name, data in deltas.items()}
    chosen = choose(len(case.new), len(packed["packed"]), sizes)
    (folder / "old").write_bytes(case.old)
    times_ms = {}
    for name, data in deltas.items():
        (folder / name).write_bytes(data)
        start = time.monotonic()
        undo_apart(
            folder / name, folder / "old", folder / f"{name}.new", len(case.new), hashlib.sha256(case.new).hexdigest()
        )
        times_ms[name] = round((time.monotonic() - start) * 1000)
    return {
        "name": case.name, "whole": len(case.new), "zstd": zstd_bytes(case.new), "packed": len(packed["packed"]),
        "patch": sizes.get("patch", 0), "tensor": sizes.get("tensor", 0), "chosen": chosen, "undo_ms": times_ms.get(chosen, 0),
        "part_of_zstd": round(min(sizes.values()) / zstd_bytes(case.new), 4),
    }  # fmt: skip


def table(result: dict[str, Any]) -> Table:
    shown = Table(title="bytes over the wire")
    for column in ("", "whole", "zstd", "packed", "patch-from", "tensor", "published", "of zstd", "undo ms"):
        shown.add_column(column, justify="left" if column in ("", "published") else "right")
    for r in result["rows"]:
        numbers = [f"{r[name]:,}" if r[name] else "–" for name in ("whole", "zstd", "packed", "patch", "tensor")]
        shown.add_row(r["name"], *numbers, r["chosen"] or "none", f"{r['part_of_zstd']:.1%}", str(r["undo_ms"]))
    return shown


def _packed(folder: Path) -> bytes:
    out = io.BytesIO()
    archive.pack(folder, out.write)
    return out.getvalue()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=launch.REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(
            f"git {arguments[0]}: {done.stderr.strip()[:200]}; the runtime's part needs this repository's history"
        )
    return done.stdout


def _started(command: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(launch.REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=launch.REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"{' '.join(command[1:3])}: {done.stderr.strip()[-300:]}")


def main(folder: Path, bundle: Path, steps: int, as_json: bool) -> int:
    from rich.console import Console

    result = run(folder, bundle, steps)
    if as_json:
        print(json.dumps(result))
    else:
        Console().print(table(result))
    return 0
