"""The registry and a real device: what is staged, signed and published is taken; what is not signed enough is not published."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tuf.ngclient import Updater

from cloud.registry import artifacts, draft, publishing, status
from cloud.registry.assigner import Assigner
from cloud.registry.folder import Registry
from cloud.registry.keys import key_files, load_signer, make_key, read_public
from cloud.registry.making import init, make_registry, release
from cloud.registry.publishing import publish, renew, utc_now
from cloud.registry.rotating import rotate
from cloud.registry.signing import sign_staged, stage
from edge_runtime.durable import replace_file
from edge_runtime.errors import DataError, ResourceError, UsageError
from edge_runtime.wire.assignment import Item

NOW = utc_now().replace(microsecond=0)
PATH = "models/surface/1.tar"


class Place:
    """A registry with its keys, and readers of it."""

    def __init__(self, folder: Path) -> None:
        self.keys, self.folder, self.reads = folder / "keys", folder, 0
        self.registry = make_registry(folder / "registry", self.keys, NOW)

    def sign(self, *holders: str) -> None:
        for holder in holders:
            sign_staged(self.registry, load_signer(self.keys / holder / f"{holder}.key"))

    def release(self) -> None:
        release(self.registry, self.keys, NOW)

    def artifact(self, data: bytes = b"weights") -> Path:
        path = self.folder / "artifact.tar"
        path.write_bytes(data)
        return path

    def reader(self, now: datetime = NOW, name: str = "") -> Updater:
        """One that begins with the first root, or goes on in the folder of that name."""
        self.reads += 1
        folder = self.folder / "readers" / (name or str(self.reads))
        folder.mkdir(parents=True, exist_ok=True)
        updater = Updater(
            str(folder), "r:/", fetcher=status.Files(self.registry.metadata), bootstrap=self.registry.root(1).data
        )
        updater._trusted_set.reference_time = now
        updater.refresh()
        return updater


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_release_from_end_to_end(place: Place) -> None:
    target = artifacts.add(place.registry, place.artifact(), PATH, NOW, floor=1, hardware=["x86_64"])
    assert (target.index, target.kind) == (1, "model")
    assert place.reader().get_targetinfo(PATH) is None, "staged is not published"
    place.release()
    info = place.reader().get_targetinfo(PATH)
    assert info is not None
    assert info.custom == {"kind": "model", "digest": "", "index": 1, "floor": 1, "hardware": ["x86_64"]}
    assert (place.registry.targets / f"models/surface/{info.hashes['sha256']}.1.tar").read_bytes() == b"weights"
    assert status.verify(place.registry, NOW) == {"roots": 1, "targets": 1, "valid": True}
    assert not place.registry.all_staged()


def test_the_index_rises_by_itself(place: Place) -> None:
    for number in (1, 2):
        artifacts.add(place.registry, place.artifact(), f"models/surface/{number}.tar", NOW)
    assert artifacts.add(place.registry, place.artifact(), "config/line/1.tar", NOW).index == 3
    place.release()
    artifacts.remove(place.registry, "config/line/1.tar", NOW)
    assert artifacts.add(place.registry, place.artifact(), "os/base/1.swu", NOW).index == 4


def test_nothing_is_published_below_its_threshold(place: Place) -> None:
    artifacts.add(place.registry, place.artifact(), PATH, NOW)
    with pytest.raises(UsageError, match="models version 2 has 0 of 1 signatures that the published targets asks for"):
        publish(place.registry, NOW)
    rotate(place.registry, "timestamp", NOW)
    place.sign("targets", "root-1")
    place.sign("root-1")  # the same holder twice counts once
    with pytest.raises(UsageError, match="root version 2 has 1 of 2 signatures that the published root asks for"):
        publish(place.registry, NOW)
    place.sign("root-3")
    assert publish(place.registry, NOW)["root"] == 2


def test_a_change_after_signing_drops_the_signatures(place: Place) -> None:
    artifacts.add(place.registry, place.artifact(), PATH, NOW)
    place.sign("targets")
    artifacts.add(place.registry, place.artifact(b"more"), "models/surface/2.tar", NOW)
    with pytest.raises(UsageError, match="models version 2 has 0 of 1"):
        publish(place.registry, NOW)


def test_a_key_signs_only_what_is_its_own(place: Place) -> None:
    artifacts.add(place.registry, place.artifact(), PATH, NOW)
    with pytest.raises(UsageError, match="nothing is staged that key"):
        place.sign("root-1")
    with pytest.raises(UsageError, match="may not sign models"):
        sign_staged(place.registry, load_signer(place.keys / "root-1" / "root-1.key"), ["models"])


def test_the_ceremony_with_separate_holders(tmp_path: Path) -> None:
    names = ("ann", "ben", "cem", "dee", "models")
    for name in names:
        make_key(tmp_path / name, name, b"correct horse" if name == "ann" else b"")
    public = {name: read_public(tmp_path / name / f"{name}.pub") for name in names}
    registry = init(
        tmp_path / "r", [public[n] for n in names[:3]], [public["dee"]], NOW, {"models": [public["models"]]}
    )
    with pytest.raises(UsageError, match="root version 1 has 0 of 2"):
        publish(registry, NOW)
    with pytest.raises(ResourceError, match="nothing is published yet"):
        Assigner(tmp_path / "r").target(PATH)
    sign_staged(registry, load_signer(tmp_path / "ann" / "ann.key", lambda path: b"correct horse"))
    sign_staged(registry, load_signer(tmp_path / "cem" / "cem.key"))
    done = sign_staged(registry, load_signer(tmp_path / "dee" / "dee.key"))
    assert set(done) == {"targets", "runtime", "config", "os"}
    with pytest.raises(UsageError, match="models version 1 has 0 of 1"):
        publish(registry, NOW)
    sign_staged(registry, load_signer(tmp_path / "models" / "models.key"))
    assert set(publish(registry, NOW).values()) == {1}
    assert status.verify(registry, NOW)["valid"]


def test_readers_follow_every_rotation(place: Place) -> None:
    place.reader(name="old")
    make_key(place.keys / "root-4", "root-4")
    make_key(place.keys / "targets-2", "targets-2")
    new_root = read_public(place.keys / "root-4" / "root-4.pub")
    new_targets = read_public(place.keys / "targets-2" / "targets-2.pub")
    old = {name: key_files(place.keys / name)[0].id[:12] for name in ("root-1", "targets")}
    for role, add, remove in (
        ("timestamp", [], []), ("snapshot", [], []), ("root", [new_root], [old["root-1"]]),
        ("targets", [new_targets], [old["targets"]]), ("models", [new_targets], [old["targets"]]),
    ):  # fmt: skip
        rotate(place.registry, role, NOW, add, remove)
        place.release()
        for name in ("old", ""):
            assert (
                place.reader(name=name)._trusted_set.timestamp.version
                == place.registry.published()["timestamp"].version
            )
    assert place.registry.published()["root"].version == 5
    renew(place.registry, NOW, force=True)
    place.reader(name="old")


def test_a_lost_targets_key_is_replaced_by_the_root(place: Place) -> None:
    make_key(place.keys / "targets-2", "targets-2")
    gone = key_files(place.keys / "targets")[0].id[:12]
    rotate(place.registry, "targets", NOW, [read_public(place.keys / "targets-2" / "targets-2.pub")], [gone])
    place.sign("root-1", "root-2", "targets-2")
    with pytest.raises(UsageError, match="targets version 2 has 0 of 1 signatures that the published root"):
        publish(place.registry, NOW)
    publish(place.registry, NOW, old_keys_lost=True)
    place.reader()


def test_the_cloud_renews_what_is_due_and_no_more(place: Place) -> None:
    assert renew(place.registry, NOW) == []
    later = NOW + timedelta(days=2)
    assert renew(place.registry, later) == ["timestamp"]
    assert place.reader(later)._trusted_set.timestamp.version == 2
    later = NOW + timedelta(days=8)
    assert renew(place.registry, later) == ["snapshot", "timestamp"]
    assert place.reader(later)._trusted_set.snapshot.version == 2


def test_what_a_crash_has_left_is_published_by_the_next_attempt(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts.add(place.registry, place.artifact(), PATH, NOW)
    rotate(place.registry, "timestamp", NOW)
    place.sign("targets", "root-1", "root-2")
    for allowed in range(6):
        left = [allowed]

        def cut(path: Path, data: bytes, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            replace_file(path, data)

        monkeypatch.setattr(publishing, "replace_file", cut)
        try:
            publish(place.registry, NOW)
        except KeyboardInterrupt:
            pass
        place.reader(name="reader")
    monkeypatch.undo()
    publish(place.registry, NOW)
    assert place.reader(name="reader").get_targetinfo(PATH) is not None
    assert place.registry.published()["root"].version == 2
    assert not place.registry.all_staged()


def test_an_artifact_that_is_not_what_was_signed_is_found(place: Place) -> None:
    target = artifacts.add(place.registry, place.artifact(), PATH, NOW)
    place.release()
    (place.registry.targets / target.file).write_bytes(b"Weights")
    with pytest.raises(DataError, match="not what is signed"):
        status.verify(place.registry, NOW)


def test_expired_offline_metadata_are_not_published_over(place: Place) -> None:
    later = NOW + timedelta(days=366)
    artifacts.add(place.registry, place.artifact(), PATH, later)
    place.sign("targets")
    with pytest.raises(UsageError, match="root expired on"):
        publish(place.registry, later)
    told = status.status(place.registry, later)["warnings"]
    assert any(text.startswith("root EXPIRED") for text in told)


def test_the_assigner_seals_only_what_is_published(place: Place) -> None:
    target = artifacts.add(place.registry, place.artifact(), PATH, NOW)
    assigner = Assigner(place.registry.folder)
    now_ns = round(NOW.timestamp() * 1e9)
    with pytest.raises(UsageError, match="not in the published targets"):
        assigner.seal("press-1", 1, {"default": Item(PATH, target.sha256)}, now_ns)
    place.release()
    assert assigner.seal("press-1", 1, {"default": Item(PATH, target.sha256)}, now_ns)
    with pytest.raises(UsageError, match="published with SHA-256"):
        assigner.seal("press-1", 1, {"default": Item(PATH, "0" * 64)}, now_ns)
    assert assigner.seal("press-1", 1, {"default": Item("models/gone/1.tar", "0" * 64, go="revert")}, now_ns)


def test_what_cannot_be_staged(place: Place, tmp_path: Path) -> None:
    for path, told in (("models/../1.tar", "expected a path like"), ("other/x/1.tar", "expected a path like")):
        with pytest.raises(UsageError, match=told):
            artifacts.add(place.registry, place.artifact(), path, NOW)
    with pytest.raises(UsageError, match="floor 9 above its own index 1"):
        artifacts.add(place.registry, place.artifact(), PATH, NOW, floor=9)
    with pytest.raises(UsageError, match="needs a SHA-256 and a length"):
        artifacts.add(place.registry, place.artifact(b""), PATH, NOW)
    with pytest.raises(UsageError, match="not in the registry"):
        artifacts.remove(place.registry, PATH, NOW)
    with pytest.raises(UsageError, match="not empty"):
        make_registry(place.registry.folder, tmp_path / "other-keys", NOW)
    with pytest.raises(UsageError, match="not a registry"):
        artifacts.add(Registry(tmp_path), place.artifact(), PATH, NOW)
    with pytest.raises(UsageError, match="signed online"):
        draft.next_version("timestamp", None, None, NOW)


def test_a_staged_version_that_was_overtaken(place: Place) -> None:
    artifacts.add(place.registry, place.artifact(), PATH, NOW)
    place.sign("targets")
    staged = place.registry.staged_document("models")
    assert staged
    publish(place.registry, NOW)
    stage(place.registry, "models", staged.metadata)
    publish(place.registry, NOW)
    assert not place.registry.all_staged(), "the very version that is published already"
    staged.metadata.signed.targets.clear()
    stage(place.registry, "models", staged.metadata)
    with pytest.raises(UsageError, match="version 2 is published already, otherwise"):
        publish(place.registry, NOW)
