"""A device's folder as the launcher finds it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from edge_runtime.update import records, states
from edge_runtime.update.environment import write_digests
from edge_runtime.update.records import Job, Release, SlotRecord
from edge_runtime.wire.update_status import UpdateState

A, B, C = "a" * 64, "b" * 64, "c" * 64
SET = "runtime"


class Place:
    """A device's folder: configuration, base runtime, environments, record."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state_dir = folder, folder / "state"
        self.config = folder / "device.toml"
        self.config.write_text('[device]\nid = "d"\nstate_dir = "state"\n')
        self.base = folder / "python"

    def environment(self, sha256: str, script: str = "") -> Path:
        made = self.state_dir / "runtimes" / sha256
        (made / "bin").mkdir(parents=True)
        program(made / "bin/python", script)
        write_digests(made)
        return made

    def write(self, record: SlotRecord) -> None:
        records.write(self.state_dir, SET, record)

    @property
    def record(self) -> SlotRecord:
        return records.read(self.state_dir, SET).record

    @property
    def told(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.state_dir / "run/launcher.json").read_text())
        except (OSError, ValueError):
            return {}
        return content


def program(path: Path, script: str) -> None:
    path.write_text(f"#!{sys.executable} -S\n{script}")
    path.chmod(0o755)


def on_trial(sha256: str, tries: int, confirmed: str = "", previous: str = "") -> SlotRecord:
    held = [Release(one) if one else None for one in (confirmed, previous)]
    return SlotRecord(UpdateState.TRIAL, Job(Release(sha256), "r1", 7, tries), held[0], held[1])


def confirmed(sha256: str, previous: str = "") -> SlotRecord:
    return states.confirm(on_trial(sha256, 1, previous))
