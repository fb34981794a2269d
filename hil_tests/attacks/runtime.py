"""Attacks and faults on runtime releases and configurations: for another machine, beyond its place, beyond its rights, lying."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from edge_runtime import launcher
from edge_runtime.clock import FakeClock
from edge_runtime.errors import GudgeonError
from edge_runtime.launched import Seen
from edge_runtime.launcher import BASE, FAILURES, Launcher
from edge_runtime.update import config_trial, environment, given_up, records, states
from edge_runtime.update.config_bundle import SLOT_SET, read_config_release
from edge_runtime.update.gate import Candidate
from edge_runtime.update.records import Job, Release, SlotRecord
from edge_runtime.update.runtime_gate import RUNTIME_VARIABLE, RuntimeGate
from edge_runtime.wire import manifest
from edge_runtime.wire.update_status import UpdateState
from hil_tests.attacks.row import Attack

OLD, NEW = "a" * 64, "b" * 64
GOOD = {"thing/__init__.py": "X = 1\n"}
DIED = Seen("it ended with exit code 1", 1, False)


def release(folder: Path, files: Mapping[str, str], link: str = "", **fields: str | int) -> Path:
    """A signed-looking release of one wheel: its manifest names what is there."""
    folder.mkdir()
    wheel = folder / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name == link else 0o644) << 16
            archive.writestr(info, text)
    values: dict[str, str | int] = {"schema": 1, "kind": "runtime", "name": "gudgeon", "version": "1", "machine": "any"}
    values |= {"glibc": "any", "outbox": 2, "python": environment.this_machine().python, **fields}
    head = "".join(
        f'{key} = "{value}"\n' if isinstance(value, str) else f"{key} = {value}\n" for key, value in values.items()
    )
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / manifest.MANIFEST).write_text(f'{head}[files]\n"{wheel.name}" = "{sha256}"\n')
    return folder


def confirmed(state_dir: Path, sha256: str = OLD) -> Path:
    """A device that runs a sound release."""
    made = environment.make(release(state_dir / f"of {sha256[0]}", GOOD), state_dir / environment.FOLDER, sha256)
    records.write(state_dir, "runtime", SlotRecord(UpdateState.CONFIRMED, None, Release(sha256)))
    return made


def refused(told: str, make: Callable[[], object]) -> None:
    with pytest.raises(GudgeonError, match=re.escape(told)):
        make()


def unchanged(state_dir: Path) -> None:
    """What was confirmed is still there, whole, and nothing is beside it."""
    runtimes = state_dir / environment.FOLDER
    assert [p.name for p in runtimes.iterdir()] == [OLD]
    assert launcher.problem(runtimes / OLD) == ""
    assert start(state_dir).choose() == (OLD, False)


class Keeper:
    """Runs that end as they are told to; after the last one the device runs."""

    ready = True

    def __init__(self, state_dir: Path, **ends: list[Seen | Callable[[], None]]) -> None:
        self.started: list[str] = []
        self._ends, self._state_dir = ends, state_dir
        self.launcher = Launcher(config(state_dir), Path("base"), lambda run_dir: self)  # type: ignore[arg-type, return-value]

    def start(self, command: list[str], settings: Mapping[str, str]) -> None:
        self.started.append(settings["GUDGEON_RUNTIME"][:1] or "base")
        given_up.write_down(self._state_dir, settings[given_up.VARIABLE], 1)  # as its supervisor begins

    def look(self, trial: bool) -> Seen:
        left = self._ends.get(self.started[-1], [])
        end: Any = left.pop(0) if left else None
        if end is None:
            self.launcher.stopping = True
        if callable(end):
            end()
        return end if isinstance(end, Seen) else Seen()

    def end(self) -> None:
        pass

    def hear(self) -> bytes:
        self.launcher.stopping = self.launcher.stopping or self.now_s() > 1000
        return b""

    def now_s(self) -> float:
        """Faster than real time: pauses are over as soon as they begin."""
        self._now_s = getattr(self, "_now_s", 0.0) + 1.0
        return self._now_s

    def run(self) -> None:
        with patch.object(launcher, "time", SimpleNamespace(monotonic=self.now_s, time_ns=lambda: 1)):
            self.launcher.run()


def config(state_dir: Path) -> Path:
    path = state_dir / "device.toml"
    path.write_text('[device]\nid = "d"\nstate_dir = "."\n')
    (state_dir / "run").mkdir(exist_ok=True)
    return path


def start(state_dir: Path) -> Launcher:
    return Keeper(state_dir).launcher


def on_trial(state_dir: Path, tries: int) -> None:
    record = records.read(state_dir, "runtime").record
    records.write(
        state_dir, "runtime", SlotRecord(UpdateState.TRIAL, Job(Release(NEW), "r", 7, tries), record.confirmed)
    )


# ── releases ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def takes(told: str, files: Mapping[str, str] = GOOD, link: str = "", **fields: str | int) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        confirmed(folder)
        evil = release(folder / "evil", {**GOOD, **files}, link, **fields)
        refused(told, lambda: environment.make(evil, folder / environment.FOLDER, NEW))
        unchanged(folder)
        assert not (folder / "escaped").exists()

    return run


def extra_file(folder: Path) -> None:
    confirmed(folder)
    evil = release(folder / "evil", GOOD)
    (evil / "run.sh").write_text("#!/bin/sh\n")
    refused("run.sh is not named in the manifest", lambda: environment.make(evil, folder / environment.FOLDER, NEW))
    unchanged(folder)


def older_queue(folder: Path) -> None:
    """A release that writes an older format of the outbox is refused before its environment is made."""
    confirmed(folder)
    before = os.environ.get(RUNTIME_VARIABLE)
    os.environ[RUNTIME_VARIABLE] = OLD
    try:
        gate = RuntimeGate(folder, config(folder), lambda: None, FakeClock())  # type: ignore[arg-type, return-value]
        verdict = gate.check(Candidate("runtime", release(folder / "old", GOOD, outbox=1), "", NEW))
    finally:
        os.environ.pop(RUNTIME_VARIABLE) if before is None else os.environ.update({RUNTIME_VARIABLE: before})
    assert not verdict.ok
    assert "outbox format 1" in verdict.reason
    unchanged(folder)


def changed_later(folder: Path) -> None:
    """A file of the environment of a release on trial is changed, and one is added to what is confirmed before it."""
    confirmed(folder)
    made = environment.make(release(folder / "new", GOOD), folder / environment.FOLDER, NEW)
    next(made.rglob("__init__.py")).write_text("X = 2\n")
    on_trial(folder, 3)
    keeper = Keeper(folder)
    keeper.run()
    assert keeper.started == ["a"]
    after = records.read(folder, "runtime").record
    assert after.state is UpdateState.ROLLED_BACK
    assert after.refused == {NEW: 7}
    packages = next((folder / environment.FOLDER / OLD).rglob("site-packages"))
    (packages / "evil.pth").write_text("import os\n")
    assert start(folder).choose() == (BASE, False)


def confirms_and_dies(folder: Path) -> None:
    confirmed(folder)
    environment.make(release(folder / "new", GOOD), folder / environment.FOLDER, NEW)
    on_trial(folder, 1)

    def confirm() -> None:
        records.write(folder, "runtime", states.confirm(records.read(folder, "runtime").record))

    keeper = Keeper(folder, b=[confirm, *[DIED] * (FAILURES + 1)])
    keeper.run()
    assert keeper.started == ["b"] * (FAILURES + 1) + ["a"]
    after = records.read(folder, "runtime").record
    assert (after.state, after.confirmed, after.refused) == (UpdateState.ROLLED_BACK, Release(OLD), {NEW: 7})


def tries_in_a_power_cut(folder: Path) -> None:
    """The machine goes down in each try, before anything can be written afterwards."""
    confirmed(folder)
    environment.make(release(folder / "new", GOOD), folder / environment.FOLDER, NEW)
    on_trial(folder, 2)
    assert [start(folder).choose() for _ in range(4)] == [(NEW, True), (NEW, True), (OLD, False), (OLD, False)]


def both_bad(folder: Path) -> None:
    confirmed(folder)
    environment.make(release(folder / "new", GOOD), folder / environment.FOLDER, NEW)
    records.write(folder, "runtime", SlotRecord(UpdateState.CONFIRMED, None, Release(NEW), Release(OLD)))
    keeper = Keeper(folder, a=[DIED] * 99, b=[DIED] * 99, base=[DIED] * 99)
    keeper.run()
    assert keeper.started == ["b"] * FAILURES + ["a"] * FAILURES + ["base"] * FAILURES
    assert '"state": "safe mode' in (folder / "run/launcher.json").read_text()


def nonsense_record(folder: Path) -> None:
    """A release writes a record with a sound checksum that names a path for a hash; then both."""
    confirmed(folder)
    slots = folder / "slots/runtime"
    newest, record = launcher.read(slots)
    body = json.dumps({**record, "confirmed": {"sha256": "../../evil"}, "sequence": record["sequence"] + 1}).encode()
    nonsense = (hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n").ljust(records.RECORD_BYTES)
    (slots / records.NAMES[1 - newest]).write_bytes(nonsense)
    assert start(folder).choose() == (OLD, False)
    (slots / records.NAMES[newest]).write_bytes(nonsense)
    assert start(folder).choose() == (BASE, False)


# ── configurations ──────────────────────────────────────────────────────────────────────────────────────────────────────


def configuration(text: str, told: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        evil = folder / "evil"
        evil.mkdir()
        (evil / "config.toml").write_text(text)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        head = 'schema = 1\nkind = "config"\nname = "line"\nversion = "1"\n'
        (evil / manifest.MANIFEST).write_text(f'{head}[files]\n"config.toml" = "{sha256}"\n')
        refused(told, lambda: read_config_release(evil))

    return run


def configuration_that_stops_the_device(folder: Path) -> None:
    """Its store folder is gone in the middle of a trial: it is rolled back at the next start, before anything reads it."""
    records.write(folder, SLOT_SET, SlotRecord(UpdateState.TRIAL, Job(Release(NEW), "r", 3, 2)))
    assert config_trial.begin(folder, 1) is None
    after = records.read(folder, SLOT_SET).record
    assert (after.state, after.refused) == (UpdateState.ROLLED_BACK, {NEW: 3})


ROWS: list[Attack] = [
    Attack("runtime", "a release for another processor", "it is for vax", takes("it is for vax", machine="vax")),
    Attack(
        "runtime",
        "a release for another Python",
        "it is for Python 3.99",
        takes("it is for Python 3.99", python="3.99"),
    ),
    Attack("runtime", "a release for a newer system", "it needs glibc", takes("it needs glibc 2.999", glibc="2.999")),
    Attack(
        "runtime",
        "a wheel with a path that leads out",
        "plain path",
        takes("not a plain path", {"../../../escaped": "x"}),
    ),
    Attack("runtime", "a wheel with an absolute path", "plain path", takes("not a plain path", {"/tmp/escaped": "x"})),
    Attack("runtime", "a wheel with a link", "a link", takes("a link", {"thing/l": "/etc/passwd"}, link="thing/l")),
    Attack(
        "runtime",
        "a wheel with code at every start of Python",
        "Python starts",
        takes("whenever Python starts", {"x.pth": "import os"}),
    ),
    Attack("runtime", "a wheel with scripts", "elsewhere", takes("elsewhere", {"thing-1.0.data/scripts/sh": "x"})),
    Attack("runtime", "a file beside the wheels", "not named in the manifest", extra_file),
    Attack("runtime", "a release that reads an older queue only", "outbox format", older_queue),
    Attack("runtime", "an installed environment is changed", "damaged", changed_later),
    Attack("runtime", "a runtime that confirms itself and dies", "rolled back", confirms_and_dies),
    Attack("runtime", "power is cut in every try", "its tries are used up", tries_in_a_power_cut),
    Attack("runtime", "every runtime is bad", "safe mode", both_bad),
    Attack("runtime", "a record that names a path", "not a SHA-256", nonsense_record),
    Attack(
        "config",
        "a configuration with another identity",
        "device's own",
        configuration("[device]\nid = 'x'", "[device] is the device's own"),
    ),
    Attack(
        "config",
        "a configuration with another broker",
        "device's own",
        configuration("[broker]\nhost = 'x'", "[broker] is the device's own"),
    ),
    Attack(
        "config",
        "a configuration that trusts another cloud",
        "device's own",
        configuration("[cloud]\npublic_key = 'x'", "[cloud] is the device's own"),
    ),
    Attack(
        "config",
        "a configuration that allows local installs",
        "device's own",
        configuration("[update]\nallow_local = true", "[update] is the device's own"),
    ),
    Attack(
        "config",
        "a configuration that lets commands write",
        "device's own",
        configuration("[commands]\nallow = ['x']", "[commands] is the device's own"),
    ),
    Attack(
        "config",
        "a configuration that sends frames away",
        "device's own",
        configuration("[control]\nshare_review_frames = true", "is the device's own"),
    ),
    Attack(
        "config",
        "a configuration that names a bundle by path",
        "device's own",
        configuration("[[assets]]\nname = 'a'\nbundles = { rul = '/x' }", "is the device's own"),
    ),
    Attack("config", "a configuration that is gone in its trial", "rolled back", configuration_that_stops_the_device),
]
