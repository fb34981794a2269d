"""A version floor that was lost in both files, begun again by a person who brings the newest metadata by hand.

It begins with what is proved: the versions of those metadata and of what this device still has of its own, whichever is newer,
all verified from the first root; the highest counter of an assignment in its slot records; and the floor of what it has
confirmed. It never begins from zero, and a floor that is there is never lowered.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from edge_runtime.clock import Clock
from edge_runtime.durable import disk_errors
from edge_runtime.errors import UsageError
from edge_runtime.link import time_floor
from edge_runtime.update.records import SlotRecord
from edge_runtime.update.tuf.assigned import assignment_keys
from edge_runtime.update.tuf.checked import CheckedUpdater
from edge_runtime.update.tuf.floor import Floor, lost
from edge_runtime.update.tuf.repository import FOLDER, METADATA
from edge_runtime.update.tuf.source import Source
from edge_runtime.wire.target import assignment_print


def proved(state_dir: Path, root: bytes, source: Source, clock: Clock, records: Iterable[SlotRecord]) -> Floor:
    """The floor that this device would begin again with; nothing is changed. UsageError where it has not lost it, BundleError
    where the metadata are refused, or older than what the device still has."""
    folder = state_dir / FOLDER
    if not lost(folder, folder / METADATA):
        raise UsageError(f"{folder}: the version floor is there; it only rises, and is not begun again")
    now_ns = max(clock.wall_ns(), time_floor.TimeFloor(state_dir / time_floor.FILE, clock).now_ns())
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / METADATA
        with disk_errors(folder):
            if (folder / METADATA).is_dir():
                shutil.copytree(folder / METADATA, copy, symlinks=True)
        updater = CheckedUpdater(copy, root, source, Floor(), now_ns)
        updater.refresh()
        entries = updater.top_level.targets.items()
        keys = assignment_keys((path, info.hashes.get("sha256"), info.custom) for path, info in entries)
        held = list(records)
        counter = max((r.job.counter for r in held if r.job), default=0)
        index = max((r.confirmed.floor for r in held if r.confirmed), default=0)
        counters = {assignment_print(key): counter for key in keys}
        return replace(updater.seen(), counters=counters, index=index, time_ns=now_ns)
