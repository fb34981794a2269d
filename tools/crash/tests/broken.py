"""Stores that forget something, so that the crash points are seen to find it."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.outbox.database import Database
from tools.crash import files, outbox, promises
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
