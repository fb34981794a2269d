"""Installing: what is refused leaves the running bundle as it was, also when the power goes at any instruction."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.errors import BundleError, ResourceError, UsageError
from edge_runtime.identity import public_bytes
from edge_runtime.infer import bundle as bundles
from edge_runtime.tests.bundles import make_bundle
from edge_runtime.update import install as installing
from edge_runtime.update import keyring, lock, records, slots, states
from edge_runtime.update.install import install, kept_at_start, main
from edge_runtime.update.records import Job, Release
from edge_runtime.update.store import address
from edge_runtime.wire import manifest as wire
from edge_runtime.wire.manifest import Variant
from edge_runtime.wire.update_status import UpdateState


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUDGEON_HOME", str(tmp_path / "home"))
    return tmp_path / "state"


@pytest.fixture
def old(tmp_path: Path, state: Path) -> Path:
    """A bundle that runs."""
    return install(make_bundle(tmp_path / "old", int8=False), state).path


@pytest.fixture
def new(tmp_path: Path, state: Path) -> Path:
    return make_bundle(tmp_path / "new", seed=1, int8=False)


def running(state: Path) -> bundles.Bundle:
    """What a device loads at start."""
    path = slots.active(state)
    assert path is not None
    installing.verify_signature(path, keyring.trusted_keys(state))
    return bundles.load(path)


def test_the_first_and_the_next(state: Path, old: Path, new: Path, tmp_path: Path) -> None:
    first = running(state)
    assert old.parent == state / "store"
    done = install(new, state)
    assert done.changed
    assert done.path == state / "store" / address(new)
    assert running(state).digest == done.digest != first.digest
    assert bundles.load(old).digest == first.digest  # kept for rollback
    record = slots.read(state)
    assert record.confirmed == Release(address(new), done.digest)
    assert record.previous == Release(old.name, first.digest)
    assert record.state is UpdateState.CONFIRMED
    install(make_bundle(tmp_path / "third", seed=3, int8=False), state)
    assert not old.exists()  # neither of the two records names it any more
    assert len(list((state / "store").iterdir())) == 2


def test_the_same_again_changes_nothing(state: Path, new: Path) -> None:
    done = install(new, state)
    before = records.read(state, "default").sequence
    again = install(new, state)
    assert (again.changed, again.path, again.signer) == (False, done.path, done.signer)
    assert records.read(state, "default").sequence == before


def test_slot_sets_are_separate(state: Path, old: Path, new: Path) -> None:
    done = install(new, state, "recipe-7")
    assert slots.active(state) == old
    assert slots.active(state, "recipe-7") == done.path
    for bad in ("", "../x", "A", "a" * 33, "a/b"):
        with pytest.raises(UsageError, match="slot set"):
            install(new, state, bad)


def test_a_damaged_running_copy_is_installed_again(state: Path, new: Path) -> None:
    first = install(new, state)
    (first.path / "model.fp32.onnx").chmod(0o644)
    (first.path / "model.fp32.onnx").write_bytes(b"rotten")
    again = install(new, state)
    assert again.changed
    assert running(state).digest == first.digest


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unsigned": ({"signed": False}, "is not signed"),
    "stranger": ({"sign_key": Ed25519PrivateKey.from_private_bytes(b"s" * 32)}, "does not trust"),
    "manifest": ({"tampered": "manifest"}, "it was changed"),
    "weights": ({"tampered": "weights"}, "model.fp32.onnx is corrupt"),
    "missing": ({"tampered": "missing"}, "model.fp32.onnx is missing"),
    "extra": ({"tampered": "extra"}, "stranger.bin is not named"),
    "engine": (
        {"variants": (Variant("v", "litert", "fp32", "model.fp32.onnx", 0.1),)},
        "refused in its trial",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_refused_leaves_the_running_one(state: Path, old: Path, tmp_path: Path, what: str) -> None:
    options, told = WRONG[what]
    before = running(state).digest
    with pytest.raises(BundleError, match=told) as caught:
        install(make_bundle(tmp_path / "bad", seed=2, int8=False, **options), state)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "bad") in str(caught.value)
    assert running(state).digest == before
    assert slots.active(state) == old


def test_a_failed_trial_is_on_record_and_the_next_may_come(state: Path, old: Path, new: Path, tmp_path: Path) -> None:
    bad = make_bundle(tmp_path / "bad", int8=False, **WRONG["engine"][0])
    with pytest.raises(BundleError):
        install(bad, state)
    record = slots.read(state)
    assert record.state is UpdateState.ROLLED_BACK
    assert record.job
    assert "no variant can run" in record.job.reason
    with pytest.raises(BundleError, match="refused in its trial"):  # by hand it may be tried again
        install(bad, state)
    assert install(new, state).changed


def test_a_trusted_stranger_is_believed(state: Path, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    (state / "trust").mkdir(parents=True)
    keyring.write_public(state / "trust" / "vendor.pub", public_bytes(key))
    assert install(make_bundle(tmp_path / "b", sign_key=key, int8=False), state).changed


def test_the_slots_are_no_source(state: Path, old: Path) -> None:
    with pytest.raises(UsageError, match="inside the device's own store"):
        install(old, state)
    assert running(state)


def test_a_managed_device_takes_no_local_bundle_unless_it_is_told_to(state: Path, old: Path, new: Path) -> None:
    (state / "trust").mkdir()
    (state / "trust" / "root.json").write_text("{}")
    with pytest.raises(BundleError, match="this device is managed"):
        install(new, state)
    assert slots.active(state) == old
    assert kept_at_start(state, "default", allow_local=False) == "this device is managed"
    assert install(new, state, allow_local=True).changed


def test_what_came_as_an_update_stays_at_the_start(state: Path, old: Path) -> None:
    record = slots.read(state)
    assert record.confirmed
    assert kept_at_start(state, "default", allow_local=False) == ""
    update = replace(record.confirmed, target="models/line/2.tar")
    records.write(state, "default", replace(record, confirmed=update))
    assert "came as an update" in kept_at_start(state, "default", allow_local=True)
    assert kept_at_start(state, "shadow", allow_local=True) == ""


def test_nothing_is_installed_beside_a_trial_or_another_writer(state: Path, old: Path, new: Path) -> None:
    record = slots.read(state)
    on_trial = states.try_once(
        states.staged(states.take(record, Job(Release("1" * 64, target="models/a/1.tar"), tries_left=1, counter=9)))
    )
    records.write(state, "default", on_trial)
    with pytest.raises(ResourceError, match="on trial"):
        install(new, state)
    with lock.writing(state), pytest.raises(ResourceError, match="is at work"), lock.writing(state, wait_s=0.0):
        pass
    assert slots.active(state) == old


def test_an_installation_ends_safe_mode(state: Path, old: Path, new: Path) -> None:
    for name in records.NAMES:
        (records.folder_of(state, "default") / name).write_bytes(b"torn")
    with pytest.raises(slots.SafeModeError):
        slots.active(state)
    assert install(new, state).changed
    assert running(state)


class PowerCut(BaseException):
    """Nothing in the product catches this one."""


def cut_at(n: int, monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException]) -> list[int]:
    """From the n-th disk call on, all of them raise; the list counts them."""
    calls = [0]

    def watch(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kw: Any) -> Any:
            calls[0] += 1
            if calls[0] >= n:
                raise error()
            return real(*args, **kw)

        return call

    for owner, name in (
        (os, "fsync"), (os, "pwrite"), (Path, "rename"), (Path, "replace"), (Path, "mkdir"), (shutil, "copyfile"),
        (shutil, "rmtree"), (Path, "unlink"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, watch(getattr(owner, name)))
    return calls


@pytest.fixture
def disk_calls(state: Path, old: Path, new: Path) -> int:
    """How many disk calls one installation makes; the state is as before it."""
    kept = state.with_name("kept")
    shutil.copytree(state, kept)
    with pytest.MonkeyPatch.context() as patch:
        calls = cut_at(10**9, patch, PowerCut)
        install(new, state)
    shutil.rmtree(state)
    kept.rename(state)
    return calls[0]


def test_a_power_cut_at_any_disk_call(state: Path, old: Path, new: Path, disk_calls: int) -> None:
    """After each: the old or the new bundle runs, whole, and installing again succeeds."""
    before, after = running(state).digest, bundles.load(new).digest
    kept = state.with_name("kept")
    shutil.copytree(state, kept)
    assert disk_calls > 15
    for n in range(1, disk_calls + 1):
        with pytest.MonkeyPatch.context() as patch:
            cut_at(n, patch, PowerCut)
            with pytest.raises(PowerCut):
                install(new, state)
        assert running(state).digest in (before, after)
        install(new, state)
        assert running(state).digest == after
        shutil.rmtree(state)
        shutil.copytree(kept, state)


def test_a_disk_that_is_full_at_any_disk_call(state: Path, old: Path, new: Path, disk_calls: int) -> None:
    def full() -> OSError:
        return OSError(errno.ENOSPC, "No space left on device")

    before, after = running(state).digest, bundles.load(new).digest
    kept = state.with_name("kept")
    shutil.copytree(state, kept)
    told = 0
    for n in range(1, disk_calls + 1):
        with pytest.MonkeyPatch.context() as patch:
            cut_at(n, patch, full)
            try:
                install(new, state)
            except ResourceError as error:
                told += "the disk is full; free some space" in str(error)
        assert running(state).digest in (before, after)
        shutil.rmtree(state)
        shutil.copytree(kept, state)
    assert told >= disk_calls - 3  # the engine cache is best effort


def test_the_command(state: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "device.toml"
    config.write_text('[device]\nid = "d"\nstate_dir = "state"\n')
    digest = wire.digest((new / wire.MANIFEST).read_bytes())[:12]
    assert main([str(new), "--config", str(config)]) == 0
    assert f"installed {digest} in {state / 'store' / address(new)}, signed by " in capsys.readouterr().out
    assert main([str(new), "--config", str(config), "--slot-set", "default"]) == 0
    assert "already active: " in capsys.readouterr().out
