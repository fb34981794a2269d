"""`--keep DIR`: where a command leaves what it has made."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.durable import disk_errors
from edge_runtime.errors import UsageError


def check_keep(folder: Path | None) -> None:
    """Make it, before any work is done. UsageError where something is in it; ResourceError where it cannot be made."""
    if folder is None:
        return
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"--keep {folder}: the folder is not empty; choose a new one")
