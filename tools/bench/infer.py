"""`gudgeon bench infer`: every variant of a bundle on every engine that is installed, taking turns, against the first
variant that passes its golden vectors; what is refused is listed with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_runtime.errors import BundleError, GudgeonError
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer.engine import Engine
from edge_runtime.infer.select import check_golden, open_engine
from edge_runtime.wire.manifest import Variant
from tools.bench.figures import row
from tools.bench.loop import WARM, timed

REFERENCE_COUNT = 5


def run(bundle_dir: Path, count: int) -> dict[str, Any]:
    bundle = bundles.load(bundle_dir)
    inputs = bundle.golden_inputs()
    engines: dict[str, Engine] = {}
    refused = []
    for variant in bundle.manifest.variants:
        name = f"{variant.engine} {variant.name}"
        try:
            engine = open_engine(bundle, variant)
            problem = check_golden(bundle, variant, engine, inputs)
        except GudgeonError as error:
            problem = str(error)
        if problem:
            refused.append({"name": name, "reason": problem})
        else:
            engines[name] = engine
    if not engines:
        raise BundleError(f"bundle {bundle_dir}: no variant can run on this board: {refused}")
    times: dict[str, list[int]] = {name: [] for name in engines}
    for i in range(WARM + count):
        for name, engine in engines.items():
            x = inputs[i % len(inputs)]
            taken = timed(engine.infer, x)
            if i >= WARM:
                times[name].append(taken)
    floor = next(iter(times.values()))
    rows = [row(name, t, floor) for name, t in times.items()]
    rows.append(_reference(bundle, inputs, floor))
    return {
        "bench": "infer",
        "bundle_digest": bundle.digest,
        "count": count,
        "floor": next(iter(times)),
        "rows": rows,
        "refused": refused,
    }


def _reference(bundle: bundles.Bundle, inputs: list[Any], floor: list[int]) -> dict[str, Any]:
    first = next(v for v in bundle.manifest.variants if v.file.endswith(".onnx"))
    engine = open_engine(bundle, Variant("reference", "reference", first.precision, first.file, first.tolerance))
    times = [timed(engine.infer, x) for x in (inputs * REFERENCE_COUNT)[:REFERENCE_COUNT]]
    return row(f"reference {first.name} (NumPy)", times, floor)
