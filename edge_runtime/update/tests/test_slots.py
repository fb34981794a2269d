"""What runs: the confirmed release where it is whole, else the one before it, else nothing; folders of earlier versions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edge_runtime.errors import BundleError
from edge_runtime.tests.bundles import make_bundle
from edge_runtime.update import legacy, records, slots
from edge_runtime.update.records import NAMES, Job, Release, SlotRecord
from edge_runtime.update.slots import SafeModeError, bootable
from edge_runtime.update.store import Store, address
from edge_runtime.wire import manifest as wire
from edge_runtime.wire.update_status import UpdateState


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUDGEON_HOME", str(tmp_path / "home"))
    return tmp_path / "state"


def digest_of(bundle: Path) -> str:
    return wire.digest((bundle / wire.MANIFEST).read_bytes())


def stored(state: Path, seed: int) -> Release:
    source = make_bundle(state.parent / f"bundle-{seed}", seed=seed, int8=False)
    release = Release(address(source), digest_of(source))
    Store(state).put(release.sha256, lambda into: legacy.copy(source, into))
    return release


def damage(state: Path, release: Release) -> None:
    file = Store(state).path(release.sha256) / "model.fp32.onnx"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"x")


def test_before_the_first_installation(tmp_path: Path) -> None:
    assert slots.active(tmp_path) is None
    assert slots.confirmed_digest(tmp_path, "shadow") == ""
    assert list(bootable(tmp_path)) == []
    assert slots.named(tmp_path) == frozenset()
    assert list(tmp_path.iterdir()) == []


def test_the_confirmed_one_then_the_one_before_then_safe_mode(state: Path) -> None:
    old, new = stored(state, 1), stored(state, 2)
    records.write(state, "default", SlotRecord(UpdateState.CONFIRMED, confirmed=new, previous=old))
    assert slots.active(state) == Store(state).path(new.sha256)
    assert slots.confirmed_digest(state, "default") == new.digest
    damage(state, new)
    found = next(bootable(state))
    assert (found.release, found.path) == (old, Store(state).path(old.sha256))
    assert "is damaged" in found.fallback
    damage(state, old)
    with pytest.raises(SafeModeError, match="default: safe mode") as caught:
        slots.active(state)
    assert "\n" not in str(caught.value)


def test_one_that_is_whole_and_cannot_be_loaded_gives_way_to_the_one_before(state: Path) -> None:
    old, new = stored(state, 1), stored(state, 2)
    records.write(state, "default", SlotRecord(UpdateState.CONFIRMED, confirmed=new, previous=old))
    tried = bootable(state)
    assert next(tried).release == new
    second = next(tried)
    assert (second.release, "could not be run" in second.fallback) == (old, True)
    with pytest.raises(SafeModeError):
        next(tried)


def test_a_candidate_on_trial_is_not_what_a_process_starts_with(state: Path) -> None:
    old, new = stored(state, 1), stored(state, 2)
    records.write(state, "default", SlotRecord(UpdateState.TRIAL, Job(new, tries_left=2), old))
    assert slots.active(state) == Store(state).path(old.sha256)
    assert slots.named(state) == frozenset((old.sha256, new.sha256))


def test_both_records_damaged_is_safe_mode_and_nothing_is_removed(state: Path) -> None:
    old = stored(state, 1)
    for _ in NAMES:
        records.write(state, "default", SlotRecord(UpdateState.CONFIRMED, confirmed=old))
    for name in NAMES:
        (records.folder_of(state, "default") / name).write_bytes(b"torn")
    with pytest.raises(SafeModeError, match="both records of slot set default are damaged"):
        slots.active(state)
    assert slots.named(state) is None


def test_a_device_is_managed_where_it_was_given_a_root(tmp_path: Path) -> None:
    assert not slots.managed(tmp_path)
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "root.json").write_text("{}")
    assert slots.managed(tmp_path)


# ── earlier versions ────────────────────────────────────────────────────────────────────────────────────────────────────


def earlier(state: Path, current: str = "B", other: str = "active") -> tuple[Path, str, str]:
    """The folders as the version before wrote them; digests of what runs and of the other one."""
    folder = state / "slots" / "default"
    a, b = (make_bundle(folder / name, seed=seed, int8=False) for seed, name in enumerate("AB"))
    rows = {n: {"state": "active", "digest": digest_of(p), "reason": ""} for n, p in (("A", a), ("B", b))}
    rows["A" if current == "B" else "B"]["state"] = other
    (folder / legacy.FILE).write_text(json.dumps({**rows, "current": current}))
    digests = {"A": digest_of(a), "B": digest_of(b)}
    return folder, digests[current], digests["A" if current == "B" else "B"]


@pytest.mark.parametrize("current", ["A", "B"])
def test_slots_of_an_earlier_version_run_and_are_moved(state: Path, current: str) -> None:
    folder, runs, other = earlier(state, current)
    assert slots.active(state) == folder / current
    assert slots.confirmed_digest(state, "default") == runs
    assert legacy.migrate(state) == ["default"]
    record = slots.read(state)
    assert record.confirmed
    assert record.previous
    assert (record.state, record.confirmed.digest, record.previous.digest) == (UpdateState.CONFIRMED, runs, other)
    assert slots.active(state) == Store(state).path(record.confirmed.sha256)
    assert sorted(p.name for p in folder.iterdir()) == ["record.0", "record.1"]
    assert legacy.migrate(state) == []


def test_what_never_ran_is_not_moved(state: Path) -> None:
    _, runs, _ = earlier(state, "A", other="rejected")
    legacy.migrate(state)
    assert (slots.confirmed_digest(state, "default"), slots.read(state).previous) == (runs, None)
    assert len(Store(state).names()) == 1


def test_a_damaged_copy_stays_as_it_is_and_its_error_is_told_when_it_is_loaded(state: Path) -> None:
    folder, _, _ = earlier(state, "A")
    (folder / "A" / "model.fp32.onnx").write_bytes(b"rotten")
    assert legacy.migrate(state) == []
    assert slots.active(state) == folder / "A"
    assert (folder / legacy.FILE).exists()


def test_a_move_that_was_cut_after_its_record_is_ended(state: Path) -> None:
    folder, runs, _ = earlier(state)
    kept = state.parent / "kept"
    shutil.copytree(folder, kept)
    legacy.migrate(state)
    for name in (legacy.FILE, "A"):
        shutil.move(kept / name, folder / name)
    assert slots.confirmed_digest(state, "default") == runs
    legacy.migrate(state)
    assert sorted(p.name for p in folder.iterdir()) == ["record.0", "record.1"]


GOOD = {**{n: {"state": "empty", "digest": "", "reason": ""} for n in "AB"}, "current": ""}


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", "\xff", json.dumps({**GOOD, "current": "C"})])
def test_a_damaged_record_of_an_earlier_version_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "slots" / "default" / "slots.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match="install") as caught:
        slots.active(tmp_path)
    assert str(file) in str(caught.value)
    assert legacy.migrate(tmp_path) == []
