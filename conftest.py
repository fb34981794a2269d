"""For all tests: no time limit for single examples, which a busy machine does not keep; in CI the same examples each time;
the folders of tests in memory where there is room, since thousands of flushes take as long as the tests themselves."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

MEMORY, ROOM_BYTES = Path("/dev/shm"), 4 << 30  # noqa: S108

with suppress(ModuleNotFoundError):  # the training environment has no hypothesis
    from hypothesis import settings

    settings.register_profile("gudgeon", deadline=None, derandomize="CI" in os.environ)
    settings.load_profile("gudgeon")

with suppress(OSError):
    disk = os.statvfs(MEMORY)
    if disk.f_bavail * disk.f_frsize >= ROOM_BYTES and not disk.f_flag & os.ST_NOEXEC:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
