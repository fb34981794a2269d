"""The shim under a real process: its wall clock is wrong, its monotonic clock is not, its flushes are slow."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.chaos.shim import Shim, compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C compiler: apt-get install gcc libc6-dev")


def told(shim: Shim, code: str) -> str:
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, env={**os.environ, **shim.environment}, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_wall_clock_is_wrong_and_the_monotonic_one_is_not(tmp_path: Path) -> None:
    shim = Shim(tmp_path)
    shim.set_clock_offset_s(-time.time() + 100)
    assert told(shim, "import time; print(time.gmtime().tm_year, 0 <= time.time() < 1000)") == "1970 True"
    before_s = time.monotonic()
    assert before_s <= float(told(shim, "import time; print(time.monotonic())")) <= time.monotonic()
    assert shim.wrong_clock_reads > 0
    shim.set_clock_offset_s(0)
    assert abs(float(told(shim, "import time; print(time.time())")) - time.time()) < 60
    shim.close()


def test_flushes_wait(tmp_path: Path) -> None:
    shim = Shim(tmp_path)
    code = (
        "import os, time\n"
        f"fd = os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "began = time.monotonic(); os.fsync(fd); os.fdatasync(fd); print(time.monotonic() - began)"
    )
    shim.set_flush_delay_s(0.05)
    assert float(told(shim, code)) >= 0.1
    assert shim.slow_flushes == 2
    shim.close()
