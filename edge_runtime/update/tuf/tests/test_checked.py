"""What is replaced in python-tuf is there, is used, and flushes."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest
from tuf.ngclient import Updater

from edge_runtime.clock import FakeClock
from edge_runtime.errors import BundleError, ResourceError
from edge_runtime.link.time_floor import RELEASED_NS
from edge_runtime.update.tuf.checked import CheckedUpdater
from edge_runtime.update.tuf.floor import NAME_LIMIT, ROLES_LIMIT, Floor
from edge_runtime.update.tuf.memory import MemoryRepository

REPLACED = ("_persist_metadata", "_persist_root", "_persist_file", "_update_root_symlink")
NOW_NS = RELEASED_NS + 10**9


@pytest.fixture
def repository() -> MemoryRepository:
    return MemoryRepository(FakeClock(wall_ns=NOW_NS))


def updater(folder: Path, repository: MemoryRepository, floor: Floor | None = None) -> CheckedUpdater:
    folder.mkdir(exist_ok=True)
    return CheckedUpdater(folder, repository.root_bytes, repository, floor or Floor(), NOW_NS)


@pytest.mark.parametrize("name", REPLACED)
def test_python_tuf_still_has_it_and_calls_it(name: str) -> None:
    assert getattr(CheckedUpdater, name) is not getattr(Updater, name)
    assert inspect.signature(getattr(CheckedUpdater, name)) == inspect.signature(getattr(Updater, name))
    callers = inspect.getsource(Updater).count(f"self.{name}(")
    assert callers >= 1


def test_its_own_way_to_fetch_a_target_is_not_used() -> None:
    for path in Path(inspect.getfile(CheckedUpdater)).parent.glob("*.py"):
        assert "download_target" not in path.read_text(), path


def test_every_file_is_flushed_before_it_has_its_name(
    tmp_path: Path, repository: MemoryRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[int] = set()
    real = os.fsync

    def fsync(fd: int) -> None:
        flushed.add(os.fstat(fd).st_ino)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    found = updater(tmp_path / "m", repository)
    found.refresh()
    found.look_up("models/none/1.tar")
    files = [path for path in (tmp_path / "m").rglob("*") if path.is_file() and not path.is_symlink()]
    assert {path.name for path in files} == {
        "1.root.json", "timestamp.json", "snapshot.json", "targets.json", "models.json"
    }  # fmt: skip
    assert all(path.stat().st_ino in flushed for path in files)
    assert {(tmp_path / "m").stat().st_ino, (tmp_path / "m" / "root_history").stat().st_ino} <= flushed
    assert os.readlink(tmp_path / "m" / "root.json") == "root_history/1.root.json"


def test_a_disk_that_is_full_is_no_attack(
    tmp_path: Path, repository: MemoryRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = updater(tmp_path / "m", repository)

    def full(*_: object) -> None:
        raise ResourceError("the disk is full")

    monkeypatch.setattr("edge_runtime.update.tuf.checked.replace_file", full)
    with pytest.raises(ResourceError):
        found.refresh()
    assert not (tmp_path / "m" / "timestamp.json").exists()


@pytest.mark.parametrize("names", [[f"role{n}" for n in range(ROLES_LIMIT)], ["x" * NAME_LIMIT]])
def test_a_snapshot_that_no_floor_could_hold_is_refused(
    tmp_path: Path, repository: MemoryRepository, names: list[str]
) -> None:
    for name in names:
        repository.roles["snapshot"].meta[f"{name}.json"] = repository.roles["snapshot"].meta["os.json"]
    repository.publish("targets")
    found = updater(tmp_path / "m", repository)
    with pytest.raises(BundleError, match=r"snapshot names more than|longer than"):
        found.refresh()
    assert found.seen().snapshot == 0


def test_nothing_older_is_written(tmp_path: Path, repository: MemoryRepository) -> None:
    floor = Floor(root=1, timestamp=2)
    found = updater(tmp_path / "m", repository, floor)
    with pytest.raises(BundleError, match="timestamp version 1 is older than 2"):
        found.refresh()
    assert not (tmp_path / "m" / "timestamp.json").exists()
    assert found.seen().timestamp == 2
