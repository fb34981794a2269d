"""Run a command with every operation on one folder written down, and, if asked, ended before operation N.

    recorder = Recorder(work)                          # compiles record.c into `work`
    recording = recorder.run(command, folder)          # all of it
    recorder.run(command, folder, crash_at=17)         # dies before its 17th operation

Any command will do whose writes go through the functions of the C library: SQLite, Python, a shell's tools. `folder` and
`work` are two folders, neither within the other.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import GudgeonError
from tools.chaos.shim import build
from tools.crash.disk import Disk
from tools.crash.trace import Op, read_trace

SOURCE = Path(__file__).parent / "record.c"
EXIT_CODE = 86  # of a process that was ended before operation N
PAGE_BYTES = 4096
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Recording:
    """`before`: the folder as it was. `ops`: what was done, notes among them. `crashed`: ended before operation N."""

    before: Disk
    ops: Sequence[Op]
    crashed: bool


class Recorder:
    def __init__(self, work: Path) -> None:
        self._library, self._page, self.trace = work / "record.so", work / "record.page", work / "record.trace"
        build(SOURCE, self._library)

    def environment(self, folder: Path, crash_at: int = 0) -> Mapping[str, str]:
        """For processes to be recorded, which begin with operation 1 of an empty trace."""
        self._page.write_bytes(struct.pack("<qq", 0, crash_at).ljust(PAGE_BYTES, b"\0"))
        self.trace.write_bytes(b"")
        names = {"ROOT": folder.resolve(), "TRACE": self.trace, "PAGE": self._page}
        return {
            "LD_PRELOAD": str(self._library),
            **{f"GUDGEON_CRASH_{name}": str(path) for name, path in names.items()},
        }

    def run(self, command: Sequence[str], folder: Path, crash_at: int = 0) -> Recording:
        """GudgeonError where the command fails by itself."""
        before = Disk.of(folder)
        environment = {**os.environ, **self.environment(folder, crash_at)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode not in (0, EXIT_CODE if crash_at else 0):
            last = done.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
            raise GudgeonError(f"{command[-1]}: exit code {done.returncode}: {last[0]}")
        return Recording(before, read_trace(self.trace.read_bytes()), done.returncode == EXIT_CODE)
