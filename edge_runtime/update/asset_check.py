"""``python -m edge_runtime.update.asset_check BUNDLE ENGINE CACHE``: do the golden vectors of a bundle come out right here, and
how long do they take? One line of JSON: {ok, reason, measured}. In a process of its own: a candidate may crash or hang."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from edge_runtime.errors import GudgeonError
from edge_runtime.infer import kinds, select
from edge_runtime.wire.manifest import Variant

NICE = 10
ROUNDS = 20


def check(bundle_dir: Path, engine: str, cache: Path) -> dict[str, object]:
    try:
        bundle = kinds.load(bundle_dir)
        choice = select.choose(bundle, cache, engine)
        inputs = bundle.golden_inputs()
        if problem := select.check_golden(bundle, variant_of(bundle, choice.engine.variant), choice.engine, inputs):
            return {"ok": False, "reason": problem, "measured": {}}
        took_ms = []
        for x in inputs * ROUNDS:
            begun_ns = time.perf_counter_ns()
            choice.engine.infer(x)
            took_ms.append((time.perf_counter_ns() - begun_ns) / 1e6)
        choice.engine.close()
    except GudgeonError as error:
        return {"ok": False, "reason": str(error), "measured": {}}
    p50, p99 = np.percentile(took_ms, (50, 99))
    return {"ok": True, "reason": "", "measured": {"golden": len(inputs), "p50_ms": float(p50), "p99_ms": float(p99)}}


def variant_of(bundle: select.Selectable, name: str) -> Variant:
    """The one that runs; the reference engine runs the first one under a name of its own."""
    return next((v for v in bundle.variants if v.name == name), bundle.variants[0])


def main(argv: list[str]) -> int:
    bundle_dir, engine, cache = argv
    os.nice(NICE)
    print(json.dumps(check(Path(bundle_dir), engine, Path(cache))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
