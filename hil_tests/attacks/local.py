"""Attacks and faults on what lies on the device: records, store, state folder, disk, power."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.errors import BundleError, ResourceError
from edge_runtime.update import install, records, slots, states
from edge_runtime.update.gate import PASS, FakeGate, Verdict
from edge_runtime.update.records import NAMES, Job, Release, SlotRecord
from edge_runtime.update.simulated import SimulatedCloud, device, tiny_release
from edge_runtime.update.slots import SafeModeError
from edge_runtime.update.store import Store
from edge_runtime.update.updater import Updater
from edge_runtime.wire.update_status import UpdateState
from hil_tests.attacks.row import Attack

AREA = "local"
SET = "default"


class Board:
    """A device on which `old` is confirmed, `new` is assigned, and everything but the line is the production code."""

    def __init__(self, folder: Path, trials: Iterable[Verdict | None] = (PASS,)) -> None:
        self.state = folder / "state"
        self.clock = FakeClock(wall_ns=1_790_000_000_000_000_000)
        self.cloud = SimulatedCloud(self.clock, "d1")
        self.old = self.cloud.release("models/line/1.tar", "old", index=1)
        self.new = self.cloud.release("models/line/2.tar", "new", index=2)
        self.gate = FakeGate()
        self.cloud.assign(default=self.old)
        self.start()
        self.go()
        self.gate = FakeGate(trials=trials)
        self.gate.running = self.old.sha256
        self.cloud.assign(default=self.new)

    def start(self) -> None:
        """The updater as after a power cut."""
        self.updater = Updater(self.state, device(), self.cloud.seams(self.state, lambda name: self.gate), poll_s=60.0)

    def go(self, turns: int = 16) -> None:
        """Until nothing moves any more."""
        for _ in range(turns):
            self.clock.advance(self.updater.turn())
            if self.updater.resting:
                return

    def until(self, state: UpdateState) -> None:
        """Killed as soon as this is on record."""
        wrote = records.write

        def write(*args: Any) -> int:
            sequence = wrote(*args)
            if args[2].state is state:
                raise KeyboardInterrupt
            return sequence

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(records, "write", write)
            with suppress(KeyboardInterrupt):
                self.go()
        assert self.record.state is state
        self.start()

    @property
    def record(self) -> SlotRecord:
        return slots.read(self.state)

    def boots(self) -> str:
        path = slots.active(self.state)
        return path.name if path else ""

    def files(self) -> list[Path]:
        return [records.folder_of(self.state, SET) / name for name in NAMES]

    def ends(self, state: UpdateState, running: str) -> None:
        assert self.record.state is state, self.record
        assert self.boots() == running
        assert self.gate.running == running


def change(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"!")


# ── records ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def one_torn(folder: Path) -> None:
    board = Board(folder)
    before = records.read(board.state, SET)
    newest = max(board.files(), key=lambda f: records.decode(f.read_bytes())[0])
    newest.write_bytes(newest.read_bytes()[:100].ljust(records.RECORD_BYTES, b"\0"))
    assert records.read(board.state, SET).damaged == (newest.name,)
    assert records.read(board.state, SET).record == before.record
    board.go()
    board.ends(UpdateState.CONFIRMED, board.new.sha256)


def both_torn(folder: Path) -> None:
    board = Board(folder)
    for file in board.files():
        file.write_bytes(b"\0" * records.RECORD_BYTES)
    with pytest.raises(SafeModeError, match="both records of slot set default are damaged"):
        board.boots()
    assert Store(board.state).names() == [board.old.sha256], "nothing is removed while nobody knows what is needed"
    board.start()
    board.go()
    board.ends(UpdateState.CONFIRMED, board.new.sha256)


def older_copy(folder: Path) -> None:
    board = Board(folder)
    kept = folder / "kept"
    shutil.copytree(board.state, kept)
    board.go()
    newest, other = sorted(board.files(), key=lambda f: -records.decode(f.read_bytes())[0])
    shutil.copyfile(records.folder_of(kept, SET) / other.name, other)
    assert board.boots() == board.new.sha256, "an old copy of one record has an old number"
    shutil.copyfile(records.folder_of(kept, SET) / newest.name, newest)
    assert board.boots() == board.old.sha256, "whole, and once confirmed"
    board.start()
    board.go()
    board.ends(UpdateState.CONFIRMED, board.new.sha256)


def older_copy_below_the_floor(folder: Path) -> None:
    """The whole of `slots` is put back; what was trusted since says what may be taken."""
    board = Board(folder)
    newest = board.cloud.release("models/line/3.tar", "newest", index=3, floor=3)
    shutil.copytree(board.state / "slots", folder / "kept")
    board.cloud.assign(default=newest)
    board.go()
    shutil.rmtree(board.state / "slots")
    shutil.copytree(folder / "kept", board.state / "slots")
    board.start()
    board.cloud.assign(default=board.new)
    board.go()
    assert board.record.state is UpdateState.REFUSED
    assert "below this device's floor" in board.cloud.told[-1].slots[SET].reason
    assert ("begin", board.new.sha256) not in board.gate.calls


# ── store ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def changed_after_staging(folder: Path) -> None:
    board = Board(folder)
    board.until(UpdateState.STAGED)
    change(Store(board.state).path(board.new.sha256) / "model.bin")
    board.go()
    board.ends(UpdateState.CONFIRMED, board.new.sha256)
    assert not Store(board.state).problem(board.new.sha256), "it was fetched again"


def changed_on_trial(folder: Path) -> None:
    board = Board(folder)
    board.until(UpdateState.TRIAL)
    change(Store(board.state).path(board.new.sha256) / "model.bin")
    board.go()
    board.ends(UpdateState.ROLLED_BACK, board.old.sha256)


def another_hash(folder: Path) -> None:
    """Who serves the artifact serves another one, which is a good archive by itself."""
    board = Board(folder)
    for path in board.cloud.fetcher.files:
        if board.new.sha256 in path:
            board.cloud.fetcher.files[path] = tiny_release("evl")
    board.go()
    board.ends(UpdateState.REFUSED, board.old.sha256)
    assert "signed" in board.cloud.told[-1].slots[SET].reason
    assert Store(board.state).names() == [board.old.sha256]


def link_in_the_store(folder: Path) -> None:
    board = Board(folder)
    victim = folder / "victim"
    (victim / "deep").mkdir(parents=True)
    (victim / "deep" / "mine.txt").write_text("mine")
    Store(board.state).path(board.new.sha256).symlink_to(victim)
    (Store(board.state).folder / f".{board.new.sha256}.making").symlink_to(victim)
    os.symlink(victim / "deep" / "mine.txt", records.folder_of(board.state, SET) / "record.x")
    board.start()
    board.go()
    board.ends(UpdateState.CONFIRMED, board.new.sha256)
    assert (victim / "deep" / "mine.txt").read_text() == "mine"


def link_in_place_of_a_record(folder: Path) -> None:
    board = Board(folder)
    victim = folder / "victim"
    victim.write_text("mine")
    oldest = min(board.files(), key=lambda f: records.decode(f.read_bytes())[0])
    oldest.unlink()
    oldest.symlink_to(victim)
    board.go()
    board.ends(UpdateState.CONFIRMED, board.new.sha256)
    assert victim.read_text() == "mine"
    assert not oldest.is_symlink()


# ── disk ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def disk_full(folder: Path) -> None:
    """At each write of an update: nothing is lost, nobody is blamed, and it goes on when there is room again."""
    board = Board(folder)
    kept = folder / "kept"
    shutil.copytree(board.state, kept)
    names = [
        (os, "pwrite"),
        (os, "fsync"),
        (os, "fdatasync"),
        (Path, "open"),
        (Path, "mkdir"),
        (Path, "rename"),
        (Path, "replace"),
    ]

    def limited(n: int) -> int:
        calls = 0

        def watch(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kw: Any) -> Any:
                nonlocal calls
                reads = real.__name__ == "open" and not any(m in str(args[1:2]) + str(kw) for m in ("w", "x", "a"))
                if not reads:
                    calls += 1
                    if calls >= n:
                        raise OSError(errno.ENOSPC, "No space left on device")
                return real(*args, **kw)

            return call

        with pytest.MonkeyPatch.context() as patch:
            for owner, name in names:
                patch.setattr(owner, name, watch(getattr(owner, name)))
            with suppress(ResourceError):
                board.go(6)
        return calls

    total = limited(10**9)
    assert total > 40
    for n in range(1, total + 1):
        shutil.rmtree(board.state)
        shutil.copytree(kept, board.state)
        board.gate = FakeGate()
        board.start()
        limited(n)
        assert board.boots() in (board.old.sha256, board.new.sha256)
        assert not board.record.refused
        board.start()
        board.go()
        board.ends(UpdateState.CONFIRMED, board.new.sha256)


# ── assignments and power ───────────────────────────────────────────────────────────────────────────────────────────────


def refused_again(folder: Path) -> None:
    board = Board(folder, trials=[Verdict(False, "it disagrees")])
    board.go()
    board.ends(UpdateState.ROLLED_BACK, board.old.sha256)
    begun = board.gate.calls.count(("begin", board.new.sha256))
    for _ in range(3):
        board.start()
        board.cloud.assign(counter=board.cloud.counter, default=board.new)
        board.go()
    board.ends(UpdateState.ROLLED_BACK, board.old.sha256)
    assert board.gate.calls.count(("begin", board.new.sha256)) == begun == 1


def cut_between_confirm_and_report(folder: Path) -> None:
    board = Board(folder)
    board.until(UpdateState.CONFIRMED)
    assert board.cloud.told[-1].slots[SET].confirmed == board.old.sha256, "the cloud does not know yet"
    board.updater.turn()
    assert board.cloud.told[-1].slots[SET].confirmed == board.new.sha256
    board.ends(UpdateState.CONFIRMED, board.new.sha256)


def tries_used_up(folder: Path) -> None:
    board = Board(folder, trials=[None])
    board.go(8)
    for _ in range(states.TRIES + 1):
        assert board.boots() == board.old.sha256, "a start begins with what is confirmed"
        board.start()
        board.go(3)
    board.ends(UpdateState.ROLLED_BACK, board.old.sha256)
    assert board.gate.calls.count(("begin", board.new.sha256)) == states.TRIES


def tries_put_back(folder: Path) -> None:
    """Somebody writes a record with more tries than there are: the hash still runs only under the gate's eyes."""
    board = Board(folder, trials=[None, Verdict(False, "it disagrees")])
    board.until(UpdateState.TRIAL)
    record = board.record
    assert record.job
    records.write(board.state, SET, replace(record, job=replace(record.job, tries_left=99)))
    board.go(20)
    board.ends(UpdateState.ROLLED_BACK, board.old.sha256)


def local_install(folder: Path) -> None:
    board = Board(folder)
    source = folder / "source"
    shutil.copytree(Store(board.state).path(board.old.sha256), source)
    with pytest.raises(BundleError, match="this device is managed"):
        install.install(source, board.state)
    assert board.boots() == board.old.sha256


def forged_trial(folder: Path) -> None:
    """A record says that something is on trial which no cloud ever assigned."""
    board = Board(folder)
    board.cloud.assign()
    release = Release("e" * 64, target="models/line/9.tar")
    evil = states.staged(states.take(board.record, Job(release, tries_left=3)))
    records.write(board.state, SET, states.try_once(evil))
    board.start()
    board.go()
    board.ends(UpdateState.ROLLED_BACK, board.old.sha256)
    assert ("begin", "e" * 64) not in board.gate.calls


ROWS = [
    Attack(AREA, "one record torn", "the other one holds", one_torn),
    Attack(AREA, "both records torn", "safe mode, until something is assigned", both_torn),
    Attack(AREA, "records replaced by an older copy", "the highest number holds; what boots is whole", older_copy),
    Attack(AREA, "slots put back below the floor", "below this device's floor", older_copy_below_the_floor),
    Attack(AREA, "store file changed after staging", "fetched again", changed_after_staging),
    Attack(AREA, "store file changed on trial", "its files in the store were changed", changed_on_trial),
    Attack(AREA, "candidate with another hash", "refused, nothing kept", another_hash),
    Attack(AREA, "symbolic links planted in the store", "what they lead to is left alone", link_in_the_store),
    Attack(AREA, "symbolic link in place of a record", "what it leads to is left alone", link_in_place_of_a_record),
    Attack(AREA, "disk full at each write of the updater", "nobody is blamed, and it goes on", disk_full),
    Attack(AREA, "refused hash assigned again, same counter", "refused until there is a new assignment", refused_again),
    Attack(AREA, "power cut between confirm and report", "told by the next poll", cut_between_confirm_and_report),
    Attack(AREA, "tries used up by crashes", "every try ended before there was a verdict", tries_used_up),
    Attack(AREA, "tries put back by hand", "it disagrees", tries_put_back),
    Attack(AREA, "bundle installed by hand on a managed device", "this device is managed", local_install),
    Attack(AREA, "forged record of a trial", "its files in the store were changed", forged_trial),
]
