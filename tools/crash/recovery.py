"""A process that recovers image after image, recorded as the program itself was, so that recovery can be crashed, too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.child import end_with_parent
from edge_runtime.errors import GudgeonError
from tools.crash.disk import Disk, Image, write_image
from tools.crash.scenario import State
from tools.crash.shim import Recorder
from tools.crash.trace import Op, read_trace


@dataclass(frozen=True)
class Recovered:
    """What was found; and the recording of it: the folder before, and what was done."""

    state: State
    before: Disk
    ops: Sequence[Op]


class Recovery:
    """`with Recovery(…) as recovery: recovery.of(image)`. The images lie in `images`, each only as long as it is needed."""

    def __init__(self, name: str, recorder: Recorder, images: Path) -> None:
        self._name, self._recorder, self._images = name, recorder, images
        self._count = 0

    def __enter__(self) -> Recovery:
        self._images.mkdir(parents=True, exist_ok=True)
        reading, writing = os.pipe()
        command = [sys.executable, "-m", "tools.crash.program", self._name, "recover", str(writing)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **self._recorder.environment(self._images)},
            pass_fds=[writing],
            preexec_fn=end_with_parent,
        )
        os.close(writing)
        self._answers = os.fdopen(reading, "rb")
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died: the error that was raised says so
            self._process.stdin.close()
        self._process.wait()
        self._answers.close()

    def of(self, image: Image, was: Disk | None = None) -> Recovered:
        """`was`: the disk of an image on which all is as written, of a killed process: the recovery begins with what is
        not flushed yet."""
        self._count += 1
        folder = self._images / str(self._count)
        write_image(image, folder)
        return self.at(folder, was.at(folder) if was else Disk.of(folder))

    def at(self, folder: Path, before: Disk) -> Recovered:
        """Recover this folder, and remove it."""
        self._recorder.trace.write_bytes(b"")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{folder}\n".encode())
            self._process.stdin.flush()
            answer = self._answers.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            raise GudgeonError(f"{self._name}: the recovery of {folder} ended the process")
        ops = read_trace(self._recorder.trace.read_bytes())
        shutil.rmtree(folder)
        return Recovered(json.loads(answer), before, ops)
