"""What nothing needs goes, and nothing else: also when it is cut in the middle, and for a device that is behind."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from cloud.registry import artifacts, deltas, in_use, pruning
from cloud.registry.folder import Registry
from cloud.registry.making import make_registry, release
from cloud.registry.publishing import publish, renew, utc_now
from cloud.registry.status import verify
from cloud.store.opening import open_store
from cloud.store.tables import assignment, fleet_slot, rollout
from edge_runtime.cli import main
from edge_runtime.errors import UsageError
from edge_runtime.wire.target import Target

KEEP = 2


class Filled:
    """Four releases of which the last is published; the first three are named no more."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, utc_now()
        self.registry = make_registry(folder / "r", folder / "keys", self.now)
        self.old = [self.put(n) for n in range(1, 4)]
        self.new = self.put(4)
        for target in self.old:
            artifacts.remove(self.registry, target.path, self.now)
        release(self.registry, folder / "keys", self.now)

    def put(self, n: int) -> Target:
        source = self.folder / f"{n}.tar"
        source.write_bytes(f"{n}".encode() * 600)
        target = artifacts.add(self.registry, source, f"models/line/{n}.tar", self.now)
        release(self.registry, self.folder / "keys", self.now)
        return target

    def age(self, publications: int) -> None:
        """Publish so often with nothing new in it that older versions fall out of what is kept."""
        for _ in range(publications):
            assert main(["repo", "stage", str(self.registry.folder), "models"]) == 0
            release(self.registry, self.folder / "keys", self.now)

    def place(self, target: Target) -> Path:
        return self.registry.targets / target.file

    def names(self) -> set[str]:
        repo = self.registry.folder / "repo"
        return {str(path.relative_to(repo)) for path in repo.rglob("*") if path.is_file()}


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    filled = Filled(tmp_path)
    filled.age(3)
    return filled


def test_nothing_is_removed_before_somebody_says_so(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    before = filled.names()
    line = ["repo", "prune", str(filled.registry.folder), "--no-cloud", "--keep", str(KEEP)]
    assert main(line) == 0
    told = capsys.readouterr().out
    assert "would go; nothing was removed" in told
    assert filled.names() == before
    assert main([*line, "--remove", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["files"]
    assert {row["kind"] for row in rows} == {"metadata", "artifact"}
    gone = {str(Path(row["path"]).relative_to(filled.registry.folder / "repo")) for row in rows}
    assert filled.names() == before - gone
    assert main(line) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_what_is_published_and_the_versions_before_it_stay(filled: Filled) -> None:
    published = filled.registry.published()
    pruning.prune(filled.registry, set(), KEEP)
    assert filled.registry.published().keys() == published.keys()
    assert verify(filled.registry, filled.now)
    assert filled.place(filled.new).exists()
    assert not any(filled.place(target).exists() for target in filled.old)
    for role in ("snapshot", "models"):
        newest = published[role].version
        held = [n for n in range(1, newest + 1) if filled.registry.version_file(role, n).exists()]
        assert held == [newest - 1, newest]
    assert filled.registry.version_file("root", 1).exists()
    assert filled.registry.version_file("targets", 1).exists()
    renew(filled.registry, filled.now, force=True)
    assert verify(filled.registry, filled.now)


def test_what_one_of_the_kept_versions_names_stays(tmp_path: Path) -> None:
    filled = Filled(tmp_path)
    assert {one.kind for one in pruning.prune(filled.registry, set(), 5)} == {"metadata"}
    assert all(filled.place(target).exists() for target in filled.old)
    staged = filled.put(5)
    artifacts.remove(filled.registry, staged.path, filled.now)
    assert pruning.unneeded(filled.registry, set(), 1) != []
    pruning.prune(filled.registry, set(), 1)
    assert filled.place(staged).exists(), "what is published still names it"


def test_what_the_cloud_knows_of_stays(filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    config, (on_device, assigned, nowhere) = filled.folder / "cloud.toml", filled.old
    config.write_text(
        f'[store]\nurl = "sqlite:///{filled.folder}/cloud.db"\n[registry]\nfolder = "{filled.registry.folder}"\n'
    )
    engine = open_store(f"sqlite:///{filled.folder}/cloud.db")
    with engine.begin() as store:
        row: dict[str, Any] = dict.fromkeys(("state", "target", "sha256", "installed", "running", "body"), "")
        store.execute(
            insert(fleet_slot).values(**row, device="d", slot_set="default", confirmed=on_device.sha256, changed_ns=1)
        )
        content = json.dumps({"default": {"target": assigned.path, "sha256": assigned.sha256}})
        store.execute(
            insert(assignment).values(device="d", counter=1, content=content, message="", issued_ns=1, expires_ns=2)
        )
        old: dict[str, Any] = {column.name: "" for column in rollout.c if column.name not in ("id", "sha256", "state")}
        old |= {name: 1 for name in old if name.endswith("_ns")}
        store.execute(insert(rollout).values(**old, id="r1", state="aborted", sha256=nowhere.sha256))
        assert in_use.hashes(store) == {on_device.sha256, assigned.sha256}
        store.execute(insert(rollout).values(**old, id="r2", state="paused", sha256="e" * 64))
        assert in_use.hashes(store) == {on_device.sha256, assigned.sha256, "e" * 64}
    engine.dispose()
    line = ["repo", "prune", str(filled.registry.folder), "--keep", "1", "--remove"]
    assert main([*line, "--config", str(config)]) == 0
    assert [filled.place(t).exists() for t in (on_device, assigned, nowhere)] == [True, True, False]
    other = make_registry(filled.folder / "other", filled.folder / "other-keys", filled.now)
    assert main(["repo", "prune", str(other.folder), "--config", str(config)]) == UsageError.exit_code
    assert "is not" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(line)


def test_cut_anywhere_it_leaves_a_sound_registry_and_goes_on(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [one.path for one in pruning.unneeded(filled.registry, set(), KEEP)]
    unlink = Path.unlink

    def cut(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        raise KeyboardInterrupt

    for left in range(len(wanted), 0, -1):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", cut)
            with pytest.raises(KeyboardInterrupt):
                pruning.prune(filled.registry, set(), KEEP)
        assert len([path for path in wanted if path.exists()]) == left - 1
        assert filled.registry.published()["models"].signed.targets.keys() == {filled.new.path}
    assert verify(filled.registry, filled.now)
    assert pruning.prune(filled.registry, set(), KEEP) == []


def test_what_a_crash_has_left_goes_and_strange_files_stay(filled: Filled) -> None:
    registry = filled.registry
    left = [registry.targets / ".new.4711", registry.metadata / ".9.models.json.tmp"]
    strange = [registry.targets / "notes.txt", registry.metadata / "999.models.json", registry.metadata / "index.html"]
    for path in (*left, *strange):
        path.write_bytes(b"x")
    link = registry.targets / f"{hashlib.sha256(b'x').hexdigest()}.link"
    link.symlink_to(filled.folder / "1.tar")
    strange[1].unlink()
    pruning.prune(registry, set(), KEEP)
    assert not any(path.exists() for path in left)
    assert strange[0].exists()
    assert strange[2].exists()
    assert link.is_symlink()


def test_deltas_to_what_is_gone_go_with_it(filled: Filled) -> None:
    hint = filled.registry.folder / "repo" / "deltas" / ("0" * 64) / f"{filled.old[0].sha256}.json"
    hint.parent.mkdir(parents=True)
    hint.write_text("{}")
    assert deltas.stale(filled.registry) == [hint]
    assert hint in [one.path for one in pruning.prune(filled.registry, set(), KEEP)]
    assert not hint.exists()


def test_before_the_first_publication_nothing_is_old(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.metadata.mkdir(parents=True)
    with pytest.raises(UsageError, match="nothing is published yet"):
        pruning.unneeded(registry, set())


def test_at_least_what_is_published_is_kept(filled: Filled) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        pruning.unneeded(filled.registry, set(), 0)
    assert publish(filled.registry, filled.now)
