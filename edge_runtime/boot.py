"""The boot id: which run of the kernel a monotonic time belongs to."""

from __future__ import annotations

import uuid
from pathlib import Path

KERNEL_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id(path: Path = KERNEL_BOOT_ID) -> str:
    """The kernel's boot id (Linux); elsewhere a new one for this process."""
    try:
        return path.read_text().strip()
    except OSError:
        return str(uuid.uuid4())
