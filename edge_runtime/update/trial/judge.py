"""Judge: the process that tries a candidate (`process`), seen from outside: started, listened to, ended."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edge_runtime.child import end_with_parent
from edge_runtime.tasks import ENVIRONMENT

MODULE = "edge_runtime.update.trial.process"
#: exit code of the process where it was not the candidate
NOT_ITS_DOING = 4
LINE_LIMIT_BYTES = 64 * 1024
#: ended so, it was the candidate; by any other signal it was somebody else
OWN_SIGNALS = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE", "SIGSYS", "SIGXCPU")


@dataclass(frozen=True)
class Order:
    """`running`: the folder of the model that runs, "" where none does. `offline`: begin with golden vectors and pace; without,
    it was found fit before, and only what is live is compared."""

    state_dir: str
    candidate: str
    running: str
    engine: str
    offline: bool
    deadline_ms: float
    slow_ratio: float
    deadline_share: float
    min_agreement: float
    parts: int
    most_parts: int
    memory_mib: int


class Judge:
    """`module`: what is started; another one in tests of what goes wrong."""

    def __init__(self, order: Order, module: str = MODULE) -> None:
        self.order = order
        self.phase = "start"
        self.measured: dict[str, float] = {}
        self._buffer = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(asdict(order))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,
            preexec_fn=end_with_parent,
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def listen(self, timeout_s: float) -> Mapping[str, Any] | None:
        """The next thing that it says; None where it says nothing for so long, or has ended."""
        end_s = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            assert self._process.stdout is not None
            left_s = max(0.0, end_s - time.monotonic())
            if not select.select([self._process.stdout], [], [], left_s)[0]:
                return None
            piece = os.read(self._process.stdout.fileno(), 4096)
            if not piece or len(self._buffer) > LINE_LIMIT_BYTES:
                self._process.wait()
                return None
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return self._understood(line)

    def catch_up(self) -> None:
        """Read what it has said so far."""
        while self.listen(0.0) is not None:
            pass

    def _understood(self, line: bytes) -> Mapping[str, Any]:
        try:
            word = json.loads(line)
            self.phase = str(word["phase"])
            self.measured |= {str(name): float(value) for name, value in word["measured"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {"ok": False, "reason": "the process that tries it said something that is not understood"}
        return word  # type: ignore[no-any-return]

    def ending(self) -> tuple[bool, str]:
        """How it ended: whether that was the candidate's doing, and in words."""
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return name in OWN_SIGNALS, f"the process that tried it ended with {name} in phase {self.phase}"
        return code != NOT_ITS_DOING, f"the process that tried it ended with exit code {code} in phase {self.phase}"

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
