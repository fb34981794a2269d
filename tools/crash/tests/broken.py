"""Stores that forget something, so that the crash points are seen to find it."""

from __future__ import annotations

import os
from pathlib import Path

from edge_runtime.outbox.database import Database
from edge_runtime.update.records import SlotRecord
from edge_runtime.update.steps import Steps
from tools.crash import files, outbox, promises, update
from tools.crash.notes import tell
from tools.crash.scenario import Scenario


def run_unflushed(folder: Path) -> None:
    """The outbox as it would be if `durable` were not heeded."""

    def off(self: Database, durable: bool) -> None:
        self.db.execute("PRAGMA synchronous = OFF")

    Database._set_durable = off  # type: ignore[method-assign]
    outbox.run_short(folder)


def run_renamed_only(folder: Path) -> None:
    """`durable.replace_file` without its flushes."""
    for version in range(1, files.VERSIONS + 1):
        name = files.NAMES[0]
        tell(begun=name, version=version)
        temporary = folder / f".{name}.tmp"
        temporary.write_text(files.content(version))
        temporary.replace(folder / name)
        tell(replaced=name, version=version)


UNFLUSHED = Scenario("an outbox that never flushes", run_unflushed, outbox.recover_with(None), promises.check)
RENAMED_ONLY = Scenario("a file that is renamed and not flushed", run_renamed_only, files.recover, files.check)


def run_unspent(folder: Path) -> None:
    """An updater that starts its candidate before the try is on the disk."""
    spend = Steps._begin

    def early(self: Steps, slot_set: str, record: SlotRecord, reason: str) -> bool:
        assert record.job is not None
        self._gate(slot_set).begin(self._candidate(slot_set, record.job.release))
        return spend(self, slot_set, record, reason)

    Steps._begin = early  # type: ignore[method-assign]
    update.run(folder, "confirm")


def run_records_unflushed(folder: Path) -> None:
    """An updater whose flushes do nothing."""
    os.fsync = os.fdatasync = lambda fd: None
    update.run(folder, "confirm")


UNSPENT = update.CONFIRM._replace(text="an updater that starts too early", run=run_unspent)
UPDATE_UNFLUSHED = update.CONFIRM._replace(text="an updater that never flushes", run=run_records_unflushed)
