"""The slot folders A and B of earlier versions, with one `slots.json`: read as they are, and moved into store and records.

`migrate` copies what runs, and the other one where it had run, into the store; one record then takes the place of
`slots.json`, and only after it are the old folders removed. A power cut leaves either the old or the new; the next start goes on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edge_runtime.durable import disk_errors, sync_folder
from edge_runtime.errors import BundleError
from edge_runtime.update import records
from edge_runtime.update.records import Release, SlotRecord
from edge_runtime.update.store import Store, address
from edge_runtime.wire import manifest
from edge_runtime.wire.update_status import UpdateState

FILE = "slots.json"
FOLDERS = ("A", "B")
RAN = "active"


class Slot(NamedTuple):
    path: Path
    digest: str


def current(state_dir: Path, slot_set: str) -> Slot | None:
    """What runs by a `slots.json` that no record has replaced; None where there is none."""
    folder = records.folder_of(state_dir, slot_set)
    if not (folder / FILE).is_file() or records.any_sound(state_dir, slot_set):
        return None
    names = _ran(folder)
    return names[0] if names else None


def _ran(folder: Path) -> list[Slot]:
    """What runs, then the other one where it has run; BundleError where the file is damaged."""
    try:
        data = json.loads((folder / FILE).read_text())
        now = data["current"]
        if now not in ("", *FOLDERS):
            raise ValueError(f"current slot is {now!r}, expected A or B")
        order = [now, *(n for n in FOLDERS if n != now)] if now else []
        return [
            Slot(folder / n, str(data[n]["digest"]))
            for n in order
            if str(data[n]["state"]) == RAN and data[n]["digest"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{folder / FILE}: the slot record is damaged ({error}); remove it and install the bundle again"
        ) from error


def slot_sets(state_dir: Path) -> list[str]:
    """Those that have something left of an earlier version."""
    try:
        folders = sorted((state_dir / records.SLOTS).iterdir())
    except FileNotFoundError:
        return []
    return [f.name for f in folders if any((f / name).exists() for name in (FILE, *FOLDERS))]


def migrate(state_dir: Path) -> list[str]:
    """Move every slot set; which ones were. One whose bundle is damaged stays as it is: its error is told when it is loaded."""
    return list(_migrate(state_dir, Store(state_dir)))


def _migrate(state_dir: Path, store: Store) -> Iterator[str]:
    for slot_set in slot_sets(state_dir):
        folder = records.folder_of(state_dir, slot_set)
        records.sync(state_dir, slot_set)
        if not records.any_sound(state_dir, slot_set):
            if not (folder / FILE).is_file():
                continue  # not ours
            try:
                releases = [_move(slot, store) for slot in _ran(folder)]
            except (BundleError, ValueError):
                continue
            held = [*releases, None, None]
            state = UpdateState.CONFIRMED if releases else UpdateState.IDLE
            previous = held[1] if held[1] != held[0] else None
            records.write_end(state_dir, slot_set, SlotRecord(state, confirmed=held[0], previous=previous))
            yield slot_set
        _remove(folder)


def _move(slot: Slot, store: Store) -> Release:
    data = (slot.path / manifest.MANIFEST).read_bytes() if (slot.path / manifest.MANIFEST).is_file() else b""
    if manifest.digest(data) != slot.digest:
        raise BundleError(f"{slot.path}: not the bundle that was installed")
    sha256 = address(slot.path)
    store.put(sha256, lambda into: copy(slot.path, into))
    return Release(sha256, slot.digest)


def copy(source: Path, into: Path) -> None:
    """The files of a bundle folder, plain ones only; the store looks at them and flushes them."""
    into.mkdir(mode=0o755)
    for file in sorted(source.iterdir()):
        shutil.copyfile(file, into / file.name, follow_symlinks=False)


def _remove(folder: Path) -> None:
    with disk_errors(folder):
        (folder / FILE).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
        sync_folder(folder)
