"""A process that starts another again and again without importing it each time: ``python -m tools.kills.nursery NAME ARG…``.

It imports the program once, and each start is a fork that runs the program's own `main`: a real process, with its own
connections and files, that dies of a real SIGKILL. One line on standard input is one wish, one line on standard output its
answer: ``start`` → ``PID``; ``kill`` → how the process had ended by then, or -9, and the PID of the next one; ``end`` → the same
without a next one; ``stop`` → its exit code after a SIGTERM.
The nursery itself opens no file, no socket and no thread before it forks.
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from edge_runtime.child import child_main, end_with_parent

Main = Callable[[list[str]], int]
STOP_S = 10.0


def _main(module: str) -> Main:
    found: Main = importlib.import_module(module).main
    return found


def _link() -> Main:
    return partial(child_main, "link", importlib.import_module("edge_runtime.link.process").run)


PROGRAMS: dict[str, Callable[[], Main]] = {
    "producer": partial(_main, "tools.chaos.producer"),
    "link": _link,
    "ingest": partial(_main, "cloud.worker"),
    "cloud": partial(_main, "cloud.main"),
    "update": partial(_main, "tools.kills.updating"),
}


class Child:
    def __init__(self, main: Main, arguments: Sequence[str]) -> None:
        self._main, self._arguments = main, list(arguments)
        self._pid = 0

    def start(self) -> str:
        self._pid = os.fork()
        if self._pid == 0:
            self._be()
        return str(self._pid)

    def kill(self) -> str:
        """End it as it stands, and start the next one at once."""
        return f"{self.end()} {self.start()}"

    def end(self) -> str:
        ended, status = os.waitpid(self._pid, os.WNOHANG)
        if not ended:
            os.kill(self._pid, signal.SIGKILL)
            status = os.waitpid(self._pid, 0)[1]
        return str(os.waitstatus_to_exitcode(status))

    def stop(self) -> str:
        os.kill(self._pid, signal.SIGTERM)
        deadline_s = time.monotonic() + STOP_S
        while time.monotonic() < deadline_s:
            ended, status = os.waitpid(self._pid, os.WNOHANG)
            if ended:
                return str(os.waitstatus_to_exitcode(status))
            time.sleep(0.01)
        os.kill(self._pid, signal.SIGKILL)
        return str(os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1]))

    def _be(self) -> NoReturn:
        code = 1
        try:
            end_with_parent()
            random.seed()  # not the numbers of the one before
            os.dup2(2, 1)
            os.close(0)
            code = self._main(self._arguments)
        finally:
            sys.stderr.flush()
            os._exit(code)


def main(argv: list[str]) -> int:
    name, *arguments = argv
    child = Child(PROGRAMS[name](), arguments)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        print(getattr(child, line.strip())(), flush=True)
        if line.strip() == "stop":
            break
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
