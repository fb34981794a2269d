"""Clear away what killed runs have left: namespaces, mounts and folders that carry the id of a process that is gone."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from tools.chaos import disk, namespaces


def sweep() -> list[str]:
    """What was removed."""
    removed = []
    for name in namespaces.left_behind():
        namespaces.remove_namespace(name)
        removed.append(f"namespace {name}")
    for at in disk.left_behind():
        disk.unmount(at)
        removed.append(f"mount {at}")
    for folder in _folders():
        shutil.rmtree(folder, ignore_errors=True)
        removed.append(f"folder {folder}")
    return removed


def _folders() -> list[Path]:
    name = re.compile(rf"{disk.WORK_PREFIX}(\d+)-.*")
    found = Path(tempfile.gettempdir()).glob(f"{disk.WORK_PREFIX}*")
    return [p for p in found if (m := name.fullmatch(p.name)) and not Path(f"/proc/{m[1]}").exists()]
