"""`gudgeon update`: what it tells of a device, in which exit code, and an update from a medium."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event

import pytest

from edge_runtime.clock import SystemClock
from edge_runtime.config import DeviceConfig, load_device
from edge_runtime.errors import ConfigError, EndpointError, UsageError
from edge_runtime.update import cli, records, slots
from edge_runtime.update.cloud_port import MEDIA, FolderCloud
from edge_runtime.update.fetch.folder import FolderFetcher
from edge_runtime.update.gate import FakeGate, Verdict
from edge_runtime.update.getting import Getting
from edge_runtime.update.process import make_updater
from edge_runtime.update.seams import Seams
from edge_runtime.update.simulated import SimulatedCloud, device
from edge_runtime.update.tuf.repository import TrustedRepository
from edge_runtime.update.tuf.source import FolderSource
from edge_runtime.update.updater import Updater
from edge_runtime.update.wake import SOCKET_PATH, Wake
from edge_runtime.wire.update_status import UpdateState


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "device.toml").write_text('[device]\nid = "d1"\nstate_dir = "state"\n')
    return tmp_path


def medium(place: Path, cloud: SimulatedCloud) -> Path:
    """A folder as it is carried to a device."""
    folder = place / "usb"
    for path, data in {f"metadata/{n}": d for n, d in cloud.repository.files.items()}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    for path, data in cloud.fetcher.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / MEDIA).mkdir()
    (folder / MEDIA / "d1").write_bytes((cloud.sealed or b"") + b"\n")
    return folder


def updater_of(place: Path, folder: Path, gate: FakeGate) -> Updater:
    state, clock = place / "state", SystemClock()
    trust = TrustedRepository.of(state, FolderSource(folder / "metadata"), clock)
    getting = Getting(lambda: FolderFetcher(folder), state, clock)
    return Updater(
        state, device(), Seams(FolderCloud(folder, "d1"), trust, getting, lambda name: gate, clock), poll_s=1.0
    )


def test_an_update_from_a_medium_by_the_same_rules(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cloud = SimulatedCloud(SystemClock(), "d1")
    item = cloud.release("models/line/2.tar", "new", index=2)
    cloud.assign(default=item)
    folder = medium(place, cloud)
    cloud.trust(place / "state")
    assert cli.carry_out(updater_of(place, folder, FakeGate()), lambda s: None) == 0
    assert "default: confirmed" in capsys.readouterr().out
    assert slots.active(place / "state") == place / "state" / "store" / item.sha256
    assert cli.main(["status", "--config", str(place / "device.toml")]) == 0
    text = capsys.readouterr().out
    assert "managed: takes releases from its repository" in text
    assert f"confirmed {item.sha256[:12]}  models/line/2.tar" in text
    assert cli.main(["status", "--config", str(place / "device.toml"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["slots"]["default"]["starts_with"] == item.sha256

    bad = cloud.release("models/line/3.tar", "worse", index=3)
    cloud.assign(default=bad)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    gate = FakeGate(trials=[Verdict(False, "it disagrees")])
    assert cli.carry_out(updater_of(place, medium(place, cloud), gate), lambda s: None) == 1
    assert "rolled_back it disagrees" in capsys.readouterr().out
    assert slots.active(place / "state") == place / "state" / "store" / item.sha256


def test_a_medium_for_another_device_is_told(place: Path) -> None:
    cloud = SimulatedCloud(SystemClock(), "d2")
    cloud.assign(default=cloud.release("models/line/2.tar", "new", index=2))
    folder = medium(place, cloud)
    cloud.trust(place / "state")
    with pytest.raises(EndpointError, match="for device 'd2'"):
        cli.carry_out(updater_of(place, folder, FakeGate()), lambda s: None)
    (folder / MEDIA / "d1").unlink()
    with pytest.raises(EndpointError, match="is the medium for this device"):
        cli.carry_out(updater_of(place, folder, FakeGate()), lambda s: None)
    with pytest.raises(UsageError, match="no such folder"):
        cli.main(["--from", str(place / "nowhere"), "--config", str(place / "device.toml")])


def test_safe_mode_has_an_exit_code(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = load_device(place / "device.toml").device.state_dir
    for _ in records.NAMES:
        records.write(state, "default", records.SlotRecord())
    for name in records.NAMES:
        (records.folder_of(state, "default") / name).write_bytes(b"torn")
    assert cli.main(["status", "--config", str(place / "device.toml")]) == 4
    assert "safe mode" in capsys.readouterr().out


def test_now_wakes_the_updater_that_runs(place: Path) -> None:
    config = str(place / "device.toml")
    with pytest.raises(EndpointError, match="no updater runs"):
        cli.main(["now", "--config", config])
    wake = Wake(place / "state" / SOCKET_PATH)
    assert cli.main(["now", "--config", config]) == 0
    assert wake.wait(20.0)
    assert not wake.wait(0.0)
    wake.close()


def test_the_updater_is_configured_with_https_only(place: Path) -> None:
    assert DeviceConfig.__dataclass_fields__["update"]
    (place / "device.toml").write_text('[device]\nid = "d1"\nstate_dir = "state"\n[update]\nurl = "http://x"\n')
    with pytest.raises(Exception, match="expected https://HOST:PORT"):
        load_device(place / "device.toml")


def test_what_cannot_go_on_ends_with_what_is_missing(place: Path) -> None:
    """No line runs, for the model; and a configuration starts the whole device. Nothing of it is refused."""
    cloud = SimulatedCloud(SystemClock(), "d1")
    cloud.assign(
        default=cloud.release("models/line/2.tar", "new", index=2), config=cloud.release("config/l/1.tar", "c", index=3)
    )
    folder = medium(place, cloud)
    cloud.trust(place / "state")
    (place / "device.toml").write_text(
        '[device]\nid = "d1"\nstate_dir = "state"\n[plc]\nprotocol = "modbus"\nhost = "127.0.0.1"\n'
    )
    for _ in range(2):
        with pytest.raises(EndpointError, match=r"(?s)by itself.*medium.*is `gudgeon run` up") as caught:
            cli.main(["--from", str(folder), "--config", str(place / "device.toml")])
        assert "run the command again" in str(caught.value)
        for slot_set in ("default", "config"):
            assert slots.read(place / "state", slot_set).state is UpdateState.STAGED
            assert slots.read(place / "state", slot_set).refused == {}


def test_the_process_takes_from_a_medium_that_the_configuration_names(place: Path) -> None:
    cloud = SimulatedCloud(SystemClock(), "d1")
    item = cloud.release("models/line/2.tar", "new", index=2)
    cloud.assign(default=item)
    folder = medium(place, cloud)
    cloud.trust(place / "state")
    (place / "device.toml").write_text('[device]\nid = "d1"\nstate_dir = "state"\n[update]\nmedium = "usb"\n')
    loaded = load_device(place / "device.toml")
    assert loaded.update.takes
    assert loaded.update.medium == folder
    updater = make_updater(loaded, place / "device.toml", Event(), lambda told: None, lambda name: FakeGate())
    while not updater.resting or not updater.assigned:
        updater.turn()
        assert not updater.error
    assert slots.active(place / "state") == place / "state" / "store" / item.sha256
    folder.rename(place / "gone")
    updater.ask_soon()
    updater.turn()
    assert "is the medium for this device" in updater.error
    (place / "device.toml").write_text(
        '[device]\nid = "d1"\nstate_dir = "state"\n[update]\nmedium = "usb"\nurl = "https://c:1"\n'
    )
    with pytest.raises(ConfigError, match="from one place"):
        load_device(place / "device.toml")
