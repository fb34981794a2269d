"""`gudgeon train`: hand the work to the training environment, where PyTorch lives and the device's packages do not.

The interpreter is `$GUDGEON_TRAIN_PYTHON`, or `.venv-train/bin/python` beside the repository. Nothing here needs PyTorch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from edge_runtime.errors import MissingExtraError

REPOSITORY = Path(__file__).resolve().parents[2]
VARIABLE = "GUDGEON_TRAIN_PYTHON"


def train_python() -> Path:
    """The training environment's interpreter; MissingExtraError with the line that makes it."""
    if chosen := os.environ.get(VARIABLE):
        if not Path(chosen).is_file():
            raise MissingExtraError(f"{VARIABLE} is {chosen}, which is not a file; expected a Python with PyTorch")
        return Path(chosen)
    python = REPOSITORY / ".venv-train" / "bin" / "python"
    if not python.is_file():
        raise MissingExtraError("the training environment is not there; run: make setup-train")
    return python


def train(argv: list[str]) -> int:
    """Run `tools.pipeline.train_cli` with `argv` over there; its exit code is this one's."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    command = [str(train_python()), "-m", "tools.pipeline.train_cli", *argv]
    process = subprocess.Popen(command, env=environment)
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:  # the terminal has told the child as well; wait for its own end
            continue
        return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(train(sys.argv[1:]))
