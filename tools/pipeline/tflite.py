"""The `.tflite` variant, made in the converter environment where there is one: `$GUDGEON_CONVERT_PYTHON`, or
`.venv-convert/bin/python` beside the repository (`make setup-convert`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edge_runtime.errors import GudgeonError
from tools.pipeline.launch import REPOSITORY
from tools.pipeline.model import Architecture, Committee

VARIABLE = "GUDGEON_CONVERT_PYTHON"


def convert_python() -> Path | None:
    python = Path(os.environ.get(VARIABLE) or REPOSITORY / ".venv-convert" / "bin" / "python")
    return python if python.is_file() else None


def convert_int8(
    net: Committee, classes: int, architecture: Architecture, inputs: NDArray[np.float32], out: Path, python: Path
) -> None:
    """Write `net` as INT8 to `out`; `inputs` (n, 1, h, w) set the ranges. GudgeonError with the converter's last words."""
    work = out.parent
    torch.save(net.state_dict(), work / "weights.pt")
    settings = {"classes": classes, "members": len(net.members), "architecture": asdict(architecture)}
    (work / "settings.json").write_text(json.dumps(settings))
    np.save(work / "inputs.npy", inputs)
    command = [str(python), "-m", "tools.pipeline.convert", "--weights", str(work / "weights.pt"), "--out", str(out)]
    command += ["--settings", str(work / "settings.json"), "--inputs", str(work / "inputs.npy")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not out.is_file():
        words = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise GudgeonError(f"the conversion to {out.name} ended with {done.returncode}: {words}")
    print(f"converted to {out.name} ({out.stat().st_size:,} bytes)", file=sys.stderr)
