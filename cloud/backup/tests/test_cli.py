"""`gudgeon backup` over the life of a small cloud on SQLite. What it does to PostgreSQL is in `make restore-drill`."""

from __future__ import annotations

import json
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cloud.access.roles import Actor, Role
from cloud.access.shell import shell_actor
from cloud.audit.checkpoint import sign
from cloud.audit.cli import main as audit
from cloud.audit.log import record_alone
from cloud.backup.cli import main
from cloud.backup.copying import alone, name_of, sources
from cloud.backup.shelf import Kept, Shelf, Source
from cloud.settings import load_cloud
from cloud.store.opening import open_store
from edge_runtime.errors import DataError, ResourceError, UsageError
from edge_runtime.identity import load_or_make

ADA = Actor("ada", Role.OPERATOR, "token")


class Cloud:
    def __init__(self, folder: Path) -> None:
        self.home, self.backup = folder / "home", folder / "backup"
        (self.home / "registry" / "repo").mkdir(parents=True)
        self.config = self.home / "cloud.toml"
        self.config.write_text('[registry]\nfolder = "registry"\n')
        self.settings = load_cloud(self.config)
        self.key = load_or_make(self.settings.store.key_file)
        self.engine = open_store(self.settings.store.address)
        self.act("one")

    def act(self, what: str) -> None:
        record_alone(self.engine, ADA, "test.act", what)
        sign(self.engine, self.key, self.settings.anchor_file, 1)
        (self.home / "registry" / "repo" / "timestamp.json").write_text(what)

    def copy(self) -> None:
        assert main(["once", "--config", str(self.config), "--to", str(self.backup)]) == 0


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


def restored(cloud: Cloud, capsys: pytest.CaptureFixture[str], name: str, *more: str) -> Any:
    into = cloud.backup.with_name(name)
    capsys.readouterr()
    assert main(["restore", "--from", str(cloud.backup), "--into", str(into), "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


def subjects(home: Path) -> list[str]:
    with sqlite3.connect(home / "cloud.db") as connection:
        return [row[0] for row in connection.execute("SELECT subject FROM audit ORDER BY seq")]


def test_a_moment_and_the_newest_come_back(cloud: Cloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.copy()
    cloud.act("two")
    cloud.copy()
    capsys.readouterr()
    assert main(["list", "--from", str(cloud.backup), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["store"], len(told["copies_ns"]), len(told["files_ns"])) == ("sqlite", 2, 2)
    first_ns = told["copies_ns"][0]
    moment = datetime.fromtimestamp(first_ns / 1e9 + 2e-6, UTC).isoformat()
    found = restored(cloud, capsys, "moment", "--at", moment)
    assert (found["audit_rows"], found["findings"], found["copy_ns"]) == (1, [], first_ns)
    assert subjects(tmp_path / "moment") == ["one", str(tmp_path / "moment")]
    assert (tmp_path / "moment" / "registry" / "repo" / "timestamp.json").read_text() == "two"  # never back
    found = restored(cloud, capsys, "newest")
    assert found["audit_rows"] == 2
    assert subjects(tmp_path / "newest")[:2] == ["one", "two"]
    for name in ("cloud.key", "cloud.audit", "cloud.toml"):
        assert (tmp_path / "newest" / name).read_bytes() == (cloud.home / name).read_bytes()
    assert (tmp_path / "newest" / "cloud.key").stat().st_mode & 0o777 == 0o600
    assert audit(["verify", "--config", str(tmp_path / "newest" / "cloud.toml")]) == 0


def test_a_drill_leaves_nothing(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.copy()
    capsys.readouterr()
    assert main(["drill", "--from", str(cloud.backup)]) == 0
    told = capsys.readouterr().out
    assert "1 audit rows" in told
    assert not Path(told.partition(":")[0]).exists()
    assert main(["list", "--from", str(cloud.backup)]) == 0
    assert "copies  1" in capsys.readouterr().out


def test_a_tampered_store_is_told_by_the_restore(
    cloud: Cloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(cloud.home / "cloud.db") as connection:
        connection.execute("UPDATE audit SET actor = 'bob'")
    cloud.copy()
    assert main(["restore", "--from", str(cloud.backup), "--into", str(tmp_path / "new")]) == 1
    assert "row 1 was edited" in capsys.readouterr().err


def test_nothing_is_overwritten_and_wrong_use_is_told(cloud: Cloud, tmp_path: Path) -> None:
    cloud.copy()
    where = ["restore", "--from", str(cloud.backup)]
    with pytest.raises(UsageError, match="is not empty"):
        main([*where, "--into", str(cloud.home)])
    with pytest.raises(UsageError, match="not a backup"):
        main(["restore", "--from", str(cloud.home), "--into", str(tmp_path / "new")])
    with pytest.raises(DataError, match="old enough"):
        main([*where, "--into", str(tmp_path / "new"), "--at", "2020-01-01"])
    with pytest.raises(UsageError, match="is no time"):
        main([*where, "--into", str(tmp_path / "newer"), "--at", "soon"])
    with alone(cloud.backup), pytest.raises(ResourceError, match="runs with this folder already"):
        cloud.copy()


def test_a_list_that_was_tampered_with_cannot_write_elsewhere(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    shelf.prepare()
    (tmp_path / "file").write_text("x")
    assert shelf.keep([Source(tmp_path / "file", "file")], 1)
    assert not shelf.keep([Source(tmp_path / "file", "file")], 2)
    (kept,) = shelf.list(1)
    for path in ("../escaped", "/tmp/escaped"):
        with pytest.raises(DataError, match="leads out of"):
            shelf.restore(kept._replace(path=path), tmp_path / "new")
    (tmp_path / "shelf" / "blobs" / kept.sha256).write_text("y")
    with pytest.raises(DataError, match="damaged"):
        shelf.restore(kept, tmp_path / "new")
    (tmp_path / "shelf" / "files" / f"{3:020d}.json").write_text('[{"path": 1}]')
    with pytest.raises(DataError, match="not a list"):
        shelf.list(3)
    assert isinstance(kept, Kept)


def test_what_lies_outside_is_kept_under_a_name_of_its_own(tmp_path: Path) -> None:
    assert name_of(tmp_path / "a" / "k", tmp_path) == "a/k"
    assert name_of(Path("/etc/gudgeon/key"), tmp_path) == "elsewhere/etc/gudgeon/key"
    assert shell_actor().role is Role.ADMIN


def test_a_copy_that_was_cut_before_the_store_leaves_its_checkpoint_out(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.copy()
    cloud.act("two")
    shelf = Shelf(cloud.backup)
    assert shelf.keep(sources(cloud.settings, cloud.config), time.time_ns())
    told = restored(cloud, capsys, "newest")
    assert told["findings"] == []
    home = cloud.backup.with_name("newest")
    assert subjects(home)[0] == "one"
    assert "two" not in subjects(home)
    capsys.readouterr()
    assert audit(["verify", "--config", str(home / "cloud.toml")]) == 0
