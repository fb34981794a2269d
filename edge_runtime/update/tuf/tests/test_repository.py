"""A device and a repository in memory: what it takes, what it remembers, and what it does not forget."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from tuf.ngclient import Updater

from edge_runtime.clock import FakeClock
from edge_runtime.errors import BundleError, ConfigError, EndpointError, ResourceError
from edge_runtime.link.time_floor import RELEASED_NS
from edge_runtime.update.tuf.checked import BASE, _Bounded
from edge_runtime.update.tuf.floor import FILES
from edge_runtime.update.tuf.memory import MemoryRepository
from edge_runtime.update.tuf.repository import METADATA, TrustedRepository, own_hardware, root_bytes

PATH = "models/surface/1.tar"
DAY_S = 24 * 3600


class Device:
    """A device with its own clock; `trusted()` is what a start of the process finds."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(wall_ns=RELEASED_NS + 10**9)
        self.repository = MemoryRepository(self.clock)
        self.folder = folder / "state" / "trust"
        self.folder.mkdir(parents=True)

    def trusted(self, wall_ns: int | None = None) -> TrustedRepository:
        clock = self.clock if wall_ns is None else FakeClock(wall_ns=wall_ns)
        return TrustedRepository(self.folder, self.repository.root_bytes, self.repository, clock, lambda: RELEASED_NS)

    def lose(self, *names: str) -> None:
        """As a file system leaves files that were written and not flushed when the power went."""
        for name in names or ("timestamp.json", "snapshot.json", "targets.json"):
            (self.folder / METADATA / name).write_bytes(bytes(100))


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_what_is_signed_is_found(device: Device) -> None:
    sha256 = device.repository.add(PATH, b"weights", index=3, floor=2, hardware=("x86_64",), digest="a" * 64)
    device.repository.publish("models")
    target = device.trusted().refresh().target(PATH)
    assert (target.path, target.length, target.sha256) == (PATH, 7, sha256)
    assert (target.kind, target.digest, target.index, target.floor) == ("model", "a" * 64, 3, 2)
    assert target.file == f"models/surface/{sha256}.1.tar"


def test_versions_are_remembered_over_a_start(device: Device) -> None:
    device.repository.publish()
    device.trusted().refresh()
    floor = device.trusted().floor
    assert floor.versions == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2, "index": 0}
    assert floor.roles["os"] == 2
    assert floor.time_ns == device.clock.wall_ns()


def test_a_second_refresh_without_news_writes_nothing_and_once_an_hour_the_time(device: Device) -> None:
    def files() -> dict[Path, tuple[int, int]]:
        return {p: (p.lstat().st_mtime_ns, p.lstat().st_ino) for p in device.folder.rglob("*")}

    trusted = device.trusted()
    trusted.refresh()
    before = files()
    device.clock.advance(3000)
    trusted.refresh()
    device.trusted().refresh()
    assert files() == before
    device.clock.advance(601)
    trusted.refresh()
    assert {path.name for path, found in files().items() if before[path] != found} == set(FILES)
    assert device.trusted().floor.time_ns == device.clock.wall_ns()


def test_python_tuf_alone_takes_an_older_repository_after_its_files_were_zeroed_and_this_does_not(
    device: Device, tmp_path: Path
) -> None:
    older = device.repository.state()
    device.repository.publish()
    newest = device.repository.state()

    def bare(folder: Path) -> Updater:
        folder.mkdir(exist_ok=True)
        updater = Updater(
            str(folder), BASE, fetcher=_Bounded(device.repository), bootstrap=device.repository.root_bytes
        )
        updater._trusted_set.reference_time = device.repository.in_days(0)
        updater.refresh()
        return updater

    alone = tmp_path / "alone"
    assert bare(alone)._trusted_set.timestamp.version == 2
    device.trusted().refresh()
    for name in ("timestamp.json", "snapshot.json", "targets.json"):
        (alone / name).write_bytes(bytes(100))
    device.lose()

    device.repository.files = older
    assert bare(alone)._trusted_set.timestamp.version == 1, "python-tuf remembers versions in those files only"
    with pytest.raises(BundleError, match="rolled back: timestamp version 1 is older than 2"):
        device.trusted().refresh()
    assert not (device.folder / METADATA / "timestamp.json").read_bytes().strip(b"\0"), "nothing older was kept"

    device.repository.files = newest
    assert device.trusted().refresh().repository.floor.timestamp == 2, "and goes on with the honest one"


@pytest.mark.parametrize("damaged", FILES)
def test_one_damaged_floor_file_loses_nothing(device: Device, damaged: str) -> None:
    older = device.repository.state()
    device.repository.publish()
    device.trusted().refresh()
    (device.folder / damaged).write_bytes(bytes(50))
    device.lose()
    device.repository.files = older
    with pytest.raises(BundleError, match="rolled back"):
        device.trusted().refresh()


@pytest.mark.parametrize("damage", ["zeroed", "removed"])
def test_without_a_floor_nothing_begins_in_silence(device: Device, damage: str) -> None:
    device.trusted().refresh()
    for name in FILES:
        (device.folder / name).write_bytes(bytes(50)) if damage == "zeroed" else (device.folder / name).unlink()
    with pytest.raises(ResourceError, match=r"both (damaged|missing), so that an old release.*floor reset"):
        device.trusted()


def test_fast_forward_is_recovered_from_by_new_keys_and_only_by_them(device: Device) -> None:
    repository = device.repository
    for role in ("timestamp", "snapshot"):
        repository.roles[role].version = 1000
    repository.publish()
    device.trusted().refresh()
    assert device.trusted().floor.versions["timestamp"] == 1001

    for role in ("timestamp", "snapshot"):
        repository.roles[role].version = 2
    repository.publish()
    repository.new_root()
    with pytest.raises(BundleError, match="timestamp"):
        device.trusted().refresh()  # a newer root with the same keys

    repository.rotate("timestamp", "snapshot")
    repository.new_root()
    repository.publish()
    device.trusted().refresh()
    assert device.trusted().floor.versions == {"root": 3, "timestamp": 4, "snapshot": 4, "targets": 4, "index": 0}


def test_new_timestamp_keys_do_not_lower_the_floor_of_snapshot_and_targets(device: Device) -> None:
    repository = device.repository
    repository.publish()
    device.trusted().refresh()
    repository.rotate("timestamp")
    repository.new_root()
    device.lose()
    for role in ("targets", "snapshot", "models"):
        repository.roles[role].version = 0
    repository.publish()
    with pytest.raises(BundleError, match="snapshot version 1 is older than 2"):
        device.trusted().refresh()


def test_a_delegated_role_is_not_rolled_back_by_a_stolen_snapshot_key(device: Device) -> None:
    repository = device.repository
    repository.add(PATH, b"bad", index=1)
    repository.publish()
    bad = repository.roles["models"].version
    repository.add(PATH, b"mended", index=2)
    repository.publish("models")
    device.trusted().refresh().target(PATH)
    device.lose("timestamp.json", "snapshot.json", "targets.json", "models.json")
    meta = repository.roles["snapshot"].meta["models.json"]
    meta.version, meta.hashes, meta.length = bad, None, None
    repository.sign("snapshot")
    repository.sign("timestamp")
    with pytest.raises(BundleError, match="models version 2 is older than 3"):
        device.trusted().refresh()


def test_expired_metadata_stop_what_is_new_and_a_renewal_helps(device: Device) -> None:
    device.trusted().refresh()
    device.clock.advance(8 * DAY_S)
    with pytest.raises(BundleError, match=r"timestamp.json is expired: nothing new is installed"):
        device.trusted().refresh()
    device.repository.roles["timestamp"].expires = device.repository.in_days(7)
    device.repository.sign("timestamp")
    device.trusted().refresh()


@pytest.mark.parametrize("wall_ns", [0, RELEASED_NS - 365 * DAY_S * 10**9])
def test_a_clock_that_is_behind_does_not_make_old_metadata_young(device: Device, wall_ns: int) -> None:
    device.trusted().refresh()
    device.clock.advance(6 * DAY_S)
    trusted = device.trusted()
    trusted.refresh()
    assert device.trusted(wall_ns).now_ns() == device.clock.wall_ns()
    frozen = device.trusted(wall_ns)
    frozen._clock.sleep(2 * DAY_S)
    with pytest.raises(BundleError, match=r"timestamp\.json is expired"):
        frozen.refresh()


def test_a_clock_that_is_ahead_is_not_remembered(device: Device) -> None:
    device.trusted().refresh()
    with pytest.raises(BundleError, match="is expired"):
        device.trusted(device.clock.wall_ns() + 3650 * DAY_S * 10**9).refresh()
    device.trusted().refresh()
    assert device.trusted().floor.time_ns == device.clock.wall_ns()


def test_the_index_floor(device: Device) -> None:
    device.repository.add(PATH, b"old", index=4)
    device.repository.add("models/surface/2.tar", b"new", index=5, floor=5)
    device.repository.publish("models")
    targets = device.trusted().refresh()
    targets.admitted(PATH, own_hardware())
    targets.repository.confirmed(targets.admitted("models/surface/2.tar", own_hardware()))
    with pytest.raises(BundleError, match="index 4, below this device's floor of 5"):
        targets.admitted(PATH, own_hardware())
    assert device.trusted().floor.index == 5
    trusted = device.trusted()
    trusted.raise_index(3)
    assert trusted.floor.index == 5


def test_what_was_verified_before_a_failure_counts(device: Device) -> None:
    device.trusted().refresh()
    device.repository.publish()
    del device.repository.files["2.snapshot.json"]
    with pytest.raises(EndpointError, match=r"2.snapshot.json is not in the repository; tried again later"):
        device.trusted().refresh()
    assert device.trusted().floor.versions["timestamp"] == 2
    assert device.trusted().floor.versions["snapshot"] == 1


def test_the_first_start_writes_its_floor_before_any_metadata(device: Device) -> None:
    trusted = device.trusted()
    assert all((device.folder / name).exists() for name in FILES)
    assert not (device.folder / METADATA).exists()
    device.repository.files.pop("timestamp.json")
    with pytest.raises(EndpointError):
        trusted.refresh()
    device.trusted()


def test_a_device_without_a_root(tmp_path: Path, device: Device) -> None:
    assert root_bytes(tmp_path) is None
    with pytest.raises(ConfigError, match=r"root.json: missing, so there is nothing that trust could begin with"):
        TrustedRepository.of(tmp_path, device.repository, device.clock)
    (device.folder / "root.json").write_bytes(device.repository.root_bytes)
    trusted = TrustedRepository.of(device.folder.parent, device.repository, device.clock)
    assert trusted.refresh().repository.floor.root == 1


def test_a_root_that_is_none(device: Device) -> None:
    for data in (b"", b"{}", device.repository.files["timestamp.json"]):
        with pytest.raises(BundleError, match="the trusted root"):
            TrustedRepository(device.folder, data, device.repository, device.clock, lambda: 0).refresh()


@pytest.mark.parametrize(
    "path",
    ["models/surface/2.tar", "models/../x/1.tar", "runtime/none/1.tar", "", "assignment-keys/x.pub", "/etc/passwd"],
)
def test_what_is_not_there(device: Device, path: str) -> None:
    with pytest.raises(BundleError, match="not in the repository's signed targets"):
        device.trusted().refresh().target(path)


def test_the_floor_files_tell_nothing_else(device: Device) -> None:
    trusted = device.trusted()
    trusted.refresh()
    first, second = ((device.folder / name).read_bytes() for name in FILES)
    assert first == second
    assert replace(trusted.floor) == device.trusted().floor


def test_a_floor_of_a_newer_runtime_is_still_a_floor(device: Device) -> None:
    """After a rollback the older one goes on with it: what it does not know, it leaves out."""
    older = device.repository.state()
    device.repository.publish()
    trusted = device.trusted()
    trusted.refresh()
    line = json.dumps(
        {**json.loads((device.folder / FILES[0]).read_bytes().partition(b"\n")[0]), "later": {"x": [1]}}
    ).encode()
    for name in FILES:
        (device.folder / name).write_bytes(line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n")
    assert device.trusted().floor == trusted.floor
    device.lose()
    device.repository.files = older
    with pytest.raises(BundleError, match="rolled back"):
        device.trusted().refresh()
