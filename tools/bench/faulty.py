"""Engines that go wrong on purpose, for the bench and the tests of model swaps: the product's own processes with one thing
changed, the engine of bundles whose manifest asks for it. Nothing of it is in the product: it opens engines by their files.

    [training] fault = "nan", where = "judge" | "control", live = true       in the manifest of a bundle, see `FAULTS`

In the process that tries candidates the fault begins with the first call, or with live frames where `live` says so; in `control`
as soon as the file that `$GUDGEON_FAULT_FILE` names is there, so that a test decides when it slips through.

    python -m tools.bench.faulty --config device.toml       `gudgeon run` with `faulty_control`; `faulty_judge` is the other
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from edge_runtime.infer import select
from edge_runtime.infer.engine import Engine
from edge_runtime.wire.manifest import Variant

FAULT_FILE = "GUDGEON_FAULT_FILE"
CONTROL, JUDGE = "tools.bench.faulty_control", "tools.bench.faulty_judge"
#: in the process that tries candidates: are there live frames now?
live = False
Array = NDArray[np.float32]
Infer = Callable[[Array], Array]


def crash(infer: Infer, x: Array) -> Array:
    raise RuntimeError("the engine broke")


def segv(infer: Infer, x: Array) -> Array:
    ctypes.string_at(0)
    return infer(x)


def hang(infer: Infer, x: Array) -> Array:
    ctypes.PyDLL(None).pause()  # in native code, with the interpreter's lock held, for good
    return infer(x)


def nan(infer: Infer, x: Array) -> Array:
    return np.full_like(infer(x), np.nan)


def slow(infer: Infer, x: Array) -> Array:
    """The whole look at a part takes about three times as long."""
    for _ in range(3):
        infer(x)
    return infer(x)


def disagree(infer: Infer, x: Array) -> Array:
    """The least likely class becomes the most likely."""
    return -infer(x)


def memory(infer: Infer, x: Array) -> Array:
    kept = []
    while True:
        kept.append(np.ones(4 << 20))


FAULTS: Mapping[str, Callable[[Infer, Array], Array]] = {
    "crash": crash,
    "segv": segv,
    "hang": hang,
    "nan": nan,
    "slow": slow,
    "disagree": disagree,
    "memory": memory,
}
#: these go wrong while the engine is opened
AT_LOAD = {"load-crash": segv, "load-hang": hang}


class FaultyEngine:
    def __init__(self, engine: Engine, fault: str, active: Callable[[], bool]) -> None:
        self.name, self.variant = engine.name, engine.variant
        self._engine, self._fault, self._active = engine, FAULTS[fault], active

    def infer(self, x: Array) -> Array:
        return self._fault(self._engine.infer, x) if self._active() else self._engine.infer(x)

    def close(self) -> None:
        self._engine.close()


def change(where: str) -> None:
    """From now on bundles whose manifest asks for a fault here get it."""
    opened, file = select.open_engine, os.environ.get(FAULT_FILE, "")

    def open_engine(bundle: select.Selectable, variant: Variant) -> Engine:
        asked = getattr(bundle, "manifest").training  # noqa: B009
        fault = asked.get("fault", "") if asked.get("where") == where else ""
        if fault in AT_LOAD:
            AT_LOAD[fault](lambda x: x, np.zeros(1, np.float32))
        engine = opened(bundle, variant)
        if fault not in FAULTS:
            return engine
        waits = bool(asked.get("live"))
        active = (lambda: live or not waits) if where == "judge" else (lambda: os.path.exists(file))
        return FaultyEngine(engine, fault, active)

    select.open_engine = open_engine


def run(argv: list[str]) -> int:
    from edge_runtime import supervisor, tasks

    changed = [task._replace(module=CONTROL) if task.name == "control" else task for task in tasks.TASKS]
    tasks.TASKS = tuple(changed)
    return supervisor.main(argv)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
