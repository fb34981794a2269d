"""A block of vibration as Samples: `<tag>.<feature>` for each feature below, computed as `infer.features` does. Pure.

`.rms`, `.peak`, `.crest`, `.kurtosis` of the block with its mean removed, and `.envelope`: the log energy of its envelope
spectrum above 0 Hz, which rises with the impacts of a damaged bearing. A block that is BAD gives BAD samples.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_runtime.field.tag import Sample, Wave
from edge_runtime.infer.features import FLOOR, SINGLE, envelope_spectrum

FEATURES = ("rms", "peak", "crest", "kurtosis", "envelope")


def samples_of(wave: Wave) -> list[Sample]:
    empty = Sample("", None, wave.quality, wave.mono_ns, wave.wall_ns, wave.reason)
    if not wave.values:
        return [replace(empty, tag=f"{wave.tag}.{name}") for name in FEATURES]
    block = np.asarray(wave.values, np.float64)
    block = block - block.mean()
    found = {name: float(SINGLE[name](block, 0.0)) for name in ("rms", "crest", "kurtosis")}
    found["peak"] = float(np.abs(block).max())
    found["envelope"] = float(np.log(envelope_spectrum(block)[1:].sum() + FLOOR))
    return [replace(empty, tag=f"{wave.tag}.{name}", value=found[name]) for name in FEATURES]
