"""Which release runs in a slot set. Read by every process of the device; it writes nothing.

    <state_dir>/slots/<slot set>/record.{0,1}     what is confirmed (`records`)
    <state_dir>/store/<sha256>/                   the releases (`store`)

- What is confirmed runs, once its hash was found right. Where it is not, what was confirmed before it runs, and its hash is
  looked at, too. Where neither is right, or both records are damaged, the slot set is in *safe mode*: `SafeModeError`. Nothing is
  guessed, and no process ends because of it: `control` answers every part `fault`, and the updater can still mend it.
- A candidate on trial is never what a process starts with: after a crash or a power cut the confirmed one runs first.
- Slot sets: `default`, `shadow`, `recipe-<code>`, `asset-<name>-anomaly`, `asset-<name>-rul`; and `runtime`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from edge_runtime.errors import BundleError
from edge_runtime.update import legacy, records
from edge_runtime.update.records import Release, SlotRecord
from edge_runtime.update.store import Store
from edge_runtime.wire.update_status import UpdateState


class SafeModeError(BundleError):
    """Something was installed in this slot set, and nothing of it can run."""


class Bootable(NamedTuple):
    """`release` lies whole at `path`. `fallback`: why it is not the confirmed one; "" where it is."""

    path: Path
    release: Release
    fallback: str


def bootable(state_dir: Path, slot_set: str = "default") -> Iterator[Bootable]:
    """What may run, best first, each looked at when it is asked for. None at all where nothing is installed; SafeModeError at the
    end where nothing more can run."""
    before = legacy.current(state_dir, slot_set)
    if before is not None:
        yield Bootable(before.path, Release("", before.digest), "")
        return
    try:
        record = records.read(state_dir, slot_set).record
    except BundleError as error:
        raise SafeModeError(str(error)) from error
    reasons: list[str] = []
    for release in (record.confirmed, record.previous):
        if release is None:
            continue
        reason = Store(state_dir).problem(release.sha256)
        if not reason:
            yield Bootable(Store(state_dir).path(release.sha256), release, reasons[0] if reasons else "")
            reason = f"release {release.sha256[:12]} is whole, and could not be run"
        reasons.append(reason)
    if reasons:
        raise SafeModeError(
            f"slot set {slot_set}: safe mode: {'; '.join(reasons)}; install a bundle, or let the cloud assign one"
        )


def active(state_dir: Path, slot_set: str = "default") -> Path | None:
    """The folder of what runs, its hash found right; None before the first installation. SafeModeError where nothing can run."""
    found = next(bootable(state_dir, slot_set), None)
    return found.path if found else None


def confirmed_digest(state_dir: Path, slot_set: str) -> str:
    """The manifest digest of what is confirmed, by its record alone; "" where there is none."""
    before = legacy.current(state_dir, slot_set)
    if before is not None:
        return before.digest
    release = records.read(state_dir, slot_set).record.confirmed
    return release.digest if release else ""


def on_trial(state_dir: Path, slot_set: str) -> Release | None:
    """The candidate that is on trial now, by its record alone. Whoever runs it looks at its hash first."""
    record = records.read(state_dir, slot_set).record
    return record.job.release if record.job and record.state is UpdateState.TRIAL else None


def named(state_dir: Path) -> frozenset[str] | None:
    """Every hash that a record of this device needs; None where one cannot be read: then nothing may be removed."""
    found: frozenset[str] = frozenset()
    try:
        for slot_set in records.slot_sets(state_dir):
            found |= records.read(state_dir, slot_set).named
    except BundleError:
        return None
    return found


def read(state_dir: Path, slot_set: str = "default") -> SlotRecord:
    """The record; RecordError where both files are damaged."""
    return records.read(state_dir, slot_set).record


def managed(state_dir: Path) -> bool:
    """Does this device take its releases from a repository whose root it was given?"""
    with suppress(OSError):
        return os.lstat(state_dir / "trust" / "root.json").st_size >= 0
    return False
