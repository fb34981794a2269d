"""One step of a scenario in a process of its own: ``python -m tools.crash.program SCENARIO prepare|run FOLDER``, or, for
recoveries one after another, ``… SCENARIO recover FD``: a folder a line on standard input, what was found a line on FD.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tools.crash.scenario import Scenario
from tools.crash.table import scenario as find


def recover_all(scenario: Scenario, answers: int) -> None:
    for line in sys.stdin:
        try:
            state = scenario.recover(Path(line.strip()))
        except Exception as error:  # whatever a crash has left: that recovery failed is the finding
            state = {"error": f"{type(error).__name__}: {error}"}
        os.write(answers, json.dumps(state).encode() + b"\n")


def main(argv: list[str]) -> int:
    name, step, where = argv
    scenario = find(name)
    if step == "recover":
        recover_all(scenario, int(where))
    else:
        getattr(scenario, step)(Path(where))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
