"""`gudgeon train`, `evaluate` and `predict`: hand the work to the training environment, where PyTorch and scikit-learn live
and the device's packages do not.

`TRAIN` and `EVALUATE` are the tables: the first word → the module that runs over there as `python -m MODULE ARGS…`. What
is in neither `EVALUATE` nor `HERE` is a bundle folder, scored on labelled images in this environment. The interpreter is
`$GUDGEON_TRAIN_PYTHON`, or `.venv-train/bin/python` beside the repository. Nothing here needs PyTorch.
"""

from __future__ import annotations

import difflib
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from edge_runtime.errors import MissingExtraError, UsageError

REPOSITORY = Path(__file__).resolve().parents[2]
VARIABLE = "GUDGEON_TRAIN_PYTHON"


class Task(NamedTuple):
    module: str
    help: str


TRAIN = {
    "surface": Task("tools.pipeline.train_cli", "a surface inspection from labelled images"),
    "pdm": Task("tools.pdm.train_cli", "an anomaly model from recordings of sensor tags"),
    "rul": Task("tools.pdm.rul.train_cli", "the remaining useful life, from machines that ran until they failed"),
}
EVALUATE = {
    "skab": Task("tools.pdm.skab", "SKAB: one model a file, F1 with false and missed alarms"),
    "nab": Task("tools.pdm.nab", "NAB: the score of the standard profile"),
    "cwru": Task("tools.pdm.cwru", "CWRU: bearing faults by features and a linear classifier"),
}

HERE = {
    "rul": Task("tools.pdm.rul.evaluate", "predicted remaining lives against the true ones"),
}
PREDICT = {
    "rul": Task("tools.pdm.rul.predict", "the remaining useful life of every machine of a file"),
}


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
    """Run the task that the first word names; its exit code is this one's."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage("train", "TASK", TRAIN))
        return 0 if argv else UsageError.exit_code
    if argv[0] not in TRAIN:
        raise UsageError(_unknown(argv[0], TRAIN))
    return _run(TRAIN[argv[0]], argv[1:])


def evaluate(argv: list[str]) -> int:
    """Run the benchmark that the first word names, or score a bundle folder on labelled images."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage("evaluate", "BUNDLE_DIR | BENCHMARK", {**EVALUATE, **HERE}))
        print("\nBUNDLE_DIR: score a bundle on labelled images; gudgeon evaluate BUNDLE_DIR --help tells more.")
        return 0 if argv else UsageError.exit_code
    if argv[0] in EVALUATE:
        return _run(EVALUATE[argv[0]], argv[1:])
    if argv[0] in HERE:
        return _call(HERE[argv[0]], argv[1:])
    from tools.pipeline import evaluate as images

    return images.main(argv)


def predict(argv: list[str]) -> int:
    """Run a packed bundle on a file, in this environment."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage("predict", "TASK", PREDICT))
        return 0 if argv else UsageError.exit_code
    if argv[0] not in PREDICT:
        raise UsageError(_unknown(argv[0], PREDICT))
    return _call(PREDICT[argv[0]], argv[1:])


def _call(task: Task, argv: list[str]) -> int:
    return int(importlib.import_module(task.module).main(argv))


def _run(task: Task, argv: list[str]) -> int:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen([str(train_python()), "-m", task.module, *argv], env=environment)
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:  # the terminal has told the child as well; wait for its own end
            continue
        return code if code >= 0 else 128 - code


def _usage(command: str, what: str, tasks: dict[str, Task]) -> str:
    rows = "\n".join(f"  {name:<8}  {task.help}" for name, task in tasks.items())
    return (
        f"usage: gudgeon {command} {what} [ARGS…]\n\n{rows}\n\ngudgeon {command} {next(iter(tasks))} --help tells more."
    )


def _unknown(word: str, tasks: dict[str, Task]) -> str:
    near = difflib.get_close_matches(word, tasks, n=1)
    return f"unknown task {word!r}; did you mean {near[0]!r}?" if near else f"unknown task {word!r}; see --help"


if __name__ == "__main__":
    sys.exit(train(sys.argv[1:]))
