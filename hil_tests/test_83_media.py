"""A medium that `gudgeon repo export` made is checked on the device by the same rules as the network; the same comes out."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from cloud.registry import artifacts, media
from cloud.registry.folder import Registry
from cloud.registry.making import make_registry, release
from cloud.registry.publishing import utc_now
from edge_runtime.cli import main
from edge_runtime.clock import SystemClock
from edge_runtime.config import load_device
from edge_runtime.delta.tests.artifacts import files, folder
from edge_runtime.errors import BundleError, UsageError
from edge_runtime.update import slots
from edge_runtime.update.cloud_port import FolderCloud
from edge_runtime.update.fetch.folder import FolderFetcher
from edge_runtime.update.getting import Getting
from edge_runtime.update.tuf.repository import TrustedRepository
from edge_runtime.update.tuf.source import FolderSource
from edge_runtime.wire import archive
from edge_runtime.wire.update_status import ENDED, UpdateState, UpdateStatus
from hil_tests.bench import wait_for
from hil_tests.line import line_with_device

PATH = "models/surface/1.tar"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = make_registry(tmp_path / "r", tmp_path / "keys", utc_now())
    artifacts.add(made, folder(tmp_path / "bundle", files()), PATH, utc_now())
    release(made, tmp_path / "keys", utc_now())
    return made


@pytest.fixture
def stick(tmp_path: Path, registry: Registry) -> Path:
    media.export(registry, tmp_path / "stick", ["press-1", "press-2"], {"default": PATH}, utc_now())
    return tmp_path / "stick"


def take(stick: Path, registry: Registry, state_dir: Path, device: str = "press-1") -> Path:
    """As the updater does: trust, assignment, artifact, bundle folder."""
    (state_dir / "trust").mkdir(parents=True, exist_ok=True)
    (state_dir / "trust" / "root.json").write_bytes(registry.root(1).data)
    clock = SystemClock()
    trusted = TrustedRepository.of(state_dir, FolderSource(stick / "metadata"), clock).refresh()
    answer = FolderCloud(stick, device).ask(UpdateStatus(device, "b", "x86_64", 0))
    assert answer.assignment is not None
    taken = trusted.take(answer.assignment, device, {"x86_64"})
    for reason in taken.refused.values():
        raise BundleError(reason)
    (target,) = taken.targets.values()
    file = Getting(lambda: FolderFetcher(stick), state_dir, clock)(target, {}, lambda held, of: None)
    archive.unpack(file, state_dir / "unpacked", target.length)
    return state_dir / "unpacked"


def test_the_same_bundle_comes_out(stick: Path, registry: Registry, tmp_path: Path) -> None:
    for path in stick.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    out = take(stick, registry, tmp_path / "state")
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.name != "manifest.toml"} == files()
    assert not [p for p in stick.rglob("*") if p.is_symlink()]


def test_an_artifact_that_was_changed_on_the_way(stick: Path, registry: Registry, tmp_path: Path) -> None:
    (file,) = (stick / "targets" / "models").rglob("*.tar")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match="does not have the hash"):
        take(stick, registry, tmp_path / "state")


def test_metadata_that_were_changed_on_the_way(stick: Path, registry: Registry, tmp_path: Path) -> None:
    (file,) = (stick / "metadata").glob("*.models.json")
    file.write_bytes(file.read_bytes().replace(b'"index": 1', b'"index": 9').replace(b'"index":1', b'"index":9'))
    with pytest.raises(BundleError):
        take(stick, registry, tmp_path / "state")


def test_the_assignment_of_another_device(stick: Path, registry: Registry, tmp_path: Path) -> None:
    (stick / "assignments" / "press-1").write_bytes((stick / "assignments" / "press-2").read_bytes())
    with pytest.raises(BundleError, match="press-2"):
        take(stick, registry, tmp_path / "state")


def test_what_is_refused(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").write_bytes(b"")
    cases = [
        ((tmp_path / "full", ["a"], {"default": PATH}), "not an earlier export"),
        ((tmp_path / "to", ["a"], {"default": "models/surface/9.tar"}), "not in the published"),
        ((tmp_path / "to", ["../a"], {"default": PATH}), "--device"),
        ((tmp_path / "to", [], {"default": PATH}), "at least one"),
        ((tmp_path / "r" / "staged" / "x", ["a"], {"de fault": PATH}), "slot set"),
    ]
    for args, told in cases:
        with pytest.raises((UsageError, ValueError), match=told):
            media.export(registry, *args, utc_now())


def test_again_into_the_same_folder(stick: Path, registry: Registry, tmp_path: Path) -> None:
    later = utc_now() + timedelta(seconds=5)
    told = media.export(registry, stick, ["press-3"], {"default": PATH}, later, valid=timedelta(days=1))
    assert told["usable_until"] <= (later + timedelta(days=1)).isoformat()
    assert take(stick, registry, tmp_path / "state", "press-3").is_dir()


def test_as_it_is_typed(registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"repo export {registry.folder} --to {tmp_path / 'to'} --device p --item default={PATH} --json"
    assert main(line.split()) == 0
    assert json.loads(capsys.readouterr().out)["targets"] == [PATH]
    assert main(line.replace("default=", "default:").split()) == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_device_on_a_line_takes_a_configuration_from_a_medium(registry: Registry, tmp_path: Path) -> None:
    """It starts the whole device, so the device takes it by itself, from the place that its configuration names."""
    stick, path = tmp_path / "stick", "config/line/1.tar"
    (tmp_path / "part.toml").write_text("[control]\nheartbeat_ms = 321\n")
    assert (
        main(["pack", "config", str(tmp_path / "part.toml"), "--version", "1", "--out", str(tmp_path / "c.tar")]) == 0
    )
    artifacts.add(registry, tmp_path / "c.tar", path, utc_now())
    release(registry, tmp_path / "keys", utc_now())
    with line_with_device(tmp_path, 100_000, 5.0, more=f'[update]\nmedium = "{stick}"\npoll_s = 1\n') as line:
        wait_for("parts to be answered", lambda: line.stats()["answered"] > 5, 60)
        device = load_device(tmp_path / "device.toml")
        media.export(registry, stick, [device.device.id], {"config": path}, utc_now())
        state_dir = tmp_path / "state"
        (state_dir / "trust").mkdir(exist_ok=True)
        (state_dir / "trust" / "root.json").write_bytes(registry.root(1).data)
        wait_for("the trial", lambda: slots.read(state_dir, "config").state is UpdateState.TRIAL, 120)
        shutil.rmtree(stick)  # pulled out: what has begun goes on
        wait_for("its end", lambda: slots.read(state_dir, "config").state in ENDED, 240)
        record = slots.read(state_dir, "config")
        assert record.state is UpdateState.CONFIRMED, record.job
        answered = line.stats()["answered"]
        wait_for("parts after it", lambda: line.stats()["answered"] > answered + 5, 60)
