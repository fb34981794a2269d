"""A wrong wall clock and a slow disk for the device's processes alone: a small C library that they are started with.

The library is compiled with the machine's C compiler into the folder of the run; it and the harness share one page of
memory, so that the fault begins and ends while the processes run and the harness can count what really happened.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

from edge_runtime.errors import GudgeonError

SOURCE = Path(__file__).parent / "faults.c"
PAGE_BYTES = 32
CLOCK_OFFSET, FLUSH_DELAY, WRONG_READS, SLOW_FLUSHES = 0, 8, 16, 24


def compiler() -> str | None:
    return next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)


def build(source: Path, library: Path) -> None:
    """Compile a shim; GudgeonError with the compiler's last line."""
    command = [compiler() or "cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise GudgeonError(f"{source.name}: no C compiler; run: apt-get install gcc libc6-dev") from error
    if done.returncode:
        raise GudgeonError(f"{source.name} does not compile: {done.stderr.strip().splitlines()[-1:]}")


class Shim:
    """`environment` goes to the processes that are to feel the fault."""

    def __init__(self, folder: Path) -> None:
        library, page = folder / "faults.so", folder / "faults.page"
        build(SOURCE, library)
        page.write_bytes(bytes(PAGE_BYTES))
        with page.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), PAGE_BYTES)
        self.environment = {"LD_PRELOAD": str(library), "GUDGEON_CHAOS_PAGE": str(page)}

    def set_clock_offset_s(self, offset_s: float) -> None:
        self._put(CLOCK_OFFSET, round(offset_s * 1e9))

    def set_flush_delay_s(self, delay_s: float) -> None:
        self._put(FLUSH_DELAY, round(delay_s * 1e9))

    @property
    def wrong_clock_reads(self) -> int:
        return self._get(WRONG_READS)

    @property
    def slow_flushes(self) -> int:
        return self._get(SLOW_FLUSHES)

    def close(self) -> None:
        self._page.close()

    def _put(self, at: int, value: int) -> None:
        struct.pack_into("=q", self._page, at, value)

    def _get(self, at: int) -> int:
        return int(struct.unpack_from("=q", self._page, at)[0])
