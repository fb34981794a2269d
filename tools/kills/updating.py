"""The process `update` with a line that is a file: everything but the health gate is what a device runs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from edge_runtime.config import DeviceConfig
from edge_runtime.update import gates, process
from edge_runtime.update.gate import Candidate, Gate, Verdict

LINE = "line.json"
BAD = b"bad"
WATCHED = 2  # looks before there is a verdict


class FileGate:
    """`line.json` says what the line runs. It outlives the updater, as `control` does. A release that begins with ``bad`` fails
    its trial."""

    def __init__(self, state_dir: Path) -> None:
        self._path, self._looks = state_dir / LINE, 0

    def check(self, candidate: Candidate) -> Verdict:
        return Verdict(True, "", {"p99_ms": 4.0})

    def begin(self, candidate: Candidate) -> None:
        self._runs(candidate.sha256)
        self._looks = 0

    def trial(self, candidate: Candidate) -> Verdict | None:
        self._looks += 1
        if self._looks < WATCHED:
            return None
        with (candidate.path / "model.bin").open("rb") as file:
            bad = file.read(len(BAD)) == BAD
        return Verdict(not bad, "it disagrees" if bad else "", {"agreement": 0.4 if bad else 0.99})

    def revert(self, to: Candidate | None) -> None:
        self._runs(to.sha256 if to else "")

    def _runs(self, sha256: str) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"runs": sha256}))
        temporary.replace(self._path)


def make(device: DeviceConfig, config_path: Path, slot_set: str) -> Gate | None:
    return FileGate(device.device.state_dir)


def main(argv: list[str]) -> int:
    gates.TABLE = ((re.compile("default"), make),)
    return process.main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
