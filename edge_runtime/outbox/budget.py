"""How many database pages the outbox may use, so that the whole state folder stays within its disk budget.

    budget = database pages + write-ahead log + shared memory + everything else in the folder + what is held back

Held back is what others may still write without asking: kept frames up to their own limit, and one staged update. Bytes
are those that the file system has given out (`st_blocks`), as `du` counts them.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from edge_runtime.outbox.policy import Storage

BLOCK_BYTES = 512  # the unit of st_blocks, POSIX
WAL_LIMIT_BYTES = 6 * 1024 * 1024
SHM_BYTES = 64 * 1024
SLACK_BYTES = 256 * 1024  # folders that grow, small state files
UNLIMITED = 2**31


class Cap(NamedTuple):
    """Database pages: `soft` for all, `hard` for alarms."""

    soft: int
    hard: int


def du_bytes(folder: Path, without: Collection[Path] = ()) -> int:
    """What the folder takes on the disk, hard links counted once, files that vanish meanwhile not at all."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for place, _, names in os.walk(folder):
        for path in [place, *(os.path.join(place, n) for n in names)]:
            try:
                info = os.lstat(path)
            except FileNotFoundError:
                continue
            if (info.st_dev, info.st_ino) in seen or Path(path) in without:
                continue
            seen.add((info.st_dev, info.st_ino))
            total += info.st_blocks * BLOCK_BYTES
    return total


def cap_pages(storage: Storage, rest_bytes: int, frames_bytes: int, page_bytes: int) -> Cap:
    """`rest_bytes`: all but the outbox's own files. `frames_bytes`: what kept frames may still grow by."""
    if not storage.budget_bytes:
        return Cap(UNLIMITED, UNLIMITED)
    taken = rest_bytes + frames_bytes + storage.staging_bytes + WAL_LIMIT_BYTES + SHM_BYTES + SLACK_BYTES
    hard = max(0, storage.budget_bytes - taken) // page_bytes
    return Cap(max(0, hard - storage.reserve_bytes // page_bytes), hard)
