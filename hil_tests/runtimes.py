"""Runtime releases of this very code, changed in one place, each in an environment of its own; and a device that
`gudgeon-launch` starts."""

from __future__ import annotations

import hashlib
import json
import shutil
import site
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w

import edge_runtime
from edge_runtime.outbox import schema
from edge_runtime.update import environment, records
from edge_runtime.update.records import Job, Release, SlotRecord
from edge_runtime.wire import manifest
from edge_runtime.wire.update_status import UpdateState
from hil_tests.bench import wait_for
from tools.release.wheel import build_wheel

SLOT_SET = "runtime"
#: file of the package → what is made of its text
Change = Mapping[str, Callable[[str], str]]


def first(text: str) -> Callable[[str], str]:
    """`text` before everything else in a file."""
    return lambda before: before.replace(
        "from __future__ import annotations\n", f"from __future__ import annotations\n{text}\n", 1
    )


def instead(old: str, new: str) -> Callable[[str], str]:
    def change(before: str) -> str:
        assert old in before, f"{old!r} is not in the file any more"
        return before.replace(old, new, 1)

    return change


def release(folder: Path, version: str, change: Change | None = None) -> Path:
    """A release of this code with no wheel but its own."""
    package = folder / "source" / "edge_runtime"
    shutil.copytree(Path(edge_runtime.__file__).parent, package, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    for name, make in (change or {}).items():
        file = package / name
        file.write_text(make(file.read_text()))
    made = folder / "release"
    made.mkdir()
    wheel = build_wheel(made, version, package)
    has = environment.this_machine()
    (made / manifest.MANIFEST).write_text(
        tomli_w.dumps(
            {
                "schema": manifest.SCHEMA,
                "kind": "runtime",
                "name": "gudgeon",
                "version": version,
                "python": has.python,
                "machine": "any",
                "glibc": "any",
                "outbox": schema.VERSION,
                "files": {wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest()},
            }
        )
    )
    return made


def install(folder: Path, state_dir: Path, version: str, change: Change | None = None) -> str:
    """Its environment, with the other packages of this one beside it; the hash under which it lies there."""
    sha256 = hashlib.sha256(version.encode()).hexdigest()
    made = environment.make(release(folder / version, version, change), state_dir / environment.FOLDER, sha256)
    packages = next(made.glob("lib*/python*/site-packages"))
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    environment.write_digests(made)
    return sha256


def confirm(state_dir: Path, sha256: str, previous: str = "") -> None:
    before = Release(previous) if previous else None
    records.write(state_dir, SLOT_SET, SlotRecord(UpdateState.CONFIRMED, None, Release(sha256), before))


def try_out(state_dir: Path, sha256: str, tries: int = 2) -> None:
    before = records.read(state_dir, SLOT_SET).record
    records.write(
        state_dir, SLOT_SET, SlotRecord(UpdateState.TRIAL, Job(Release(sha256), "r", 1, tries), before.confirmed)
    )


def record(state_dir: Path) -> SlotRecord:
    return records.read(state_dir, SLOT_SET).record


def told(state_dir: Path) -> dict[str, Any]:
    """What the launcher does now."""
    try:
        content: dict[str, Any] = json.loads((state_dir / "run/launcher.json").read_text())
    except (OSError, ValueError):
        return {}
    return content


def runs(state_dir: Path, sha256: str) -> bool:
    return told(state_dir).get("state") == "runs" and told(state_dir)["runtime"] == sha256


class Launched:
    """The launcher as systemd keeps it: started again whenever it dies, and what it has left running is not ended first."""

    def __init__(self, config: Path, *args: str) -> None:
        self._command = [sys.executable, "-m", "edge_runtime.launcher", "--config", str(config), *args]
        self._log = (config.parent / "device.log").open("ab")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=self._log, stderr=self._log)

    def stop(self) -> None:
        self.process.terminate()
        code = self.process.wait(60)
        self._log.close()
        assert code == 0


@contextmanager
def launched(config: Path, *args: str) -> Iterator[Launched]:
    device = Launched(config, *args)
    try:
        yield device
    finally:
        device.stop()


def wait_until_runs(state_dir: Path, sha256: str, timeout_s: float = 40.0) -> None:
    wait_for(f"runtime {sha256[:12] or 'base'}", lambda: runs(state_dir, sha256), timeout_s)
