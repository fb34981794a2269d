"""A version floor that was lost: what a person may do about it, and what not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_runtime.clock import SystemClock
from edge_runtime.config import load_device
from edge_runtime.errors import BundleError, ResourceError, UsageError
from edge_runtime.outbox.opening import open_outbox
from edge_runtime.update import cli, records
from edge_runtime.update.floor_cli import EVENT
from edge_runtime.update.records import Job, Release, SlotRecord
from edge_runtime.update.simulated import SimulatedCloud
from edge_runtime.update.tuf.floor import FILES
from edge_runtime.update.tuf.repository import TrustedRepository
from edge_runtime.wire.update_status import UpdateState


class Device:
    """One that has seen a repository, and whose floor somebody has lost."""

    def __init__(self, folder: Path) -> None:
        self.config, self.state_dir, self.medium = folder / "device.toml", folder / "state", folder / "usb"
        self.config.write_text('[device]\nid = "d1"\nstate_dir = "state"\n')
        self.cloud = SimulatedCloud(SystemClock(), "d1")
        self.older = self.cloud.repository.state()
        self.cloud.release("models/line/2.tar", "new", index=2)
        self.carry()
        self.seen = self.trust().refresh().repository.floor
        release = Release("a" * 64, target="models/line/2.tar", index=2, floor=2)
        records.write(
            self.state_dir, "default", SlotRecord(UpdateState.CONFIRMED, Job(release, counter=9), confirmed=release)
        )

    def trust(self) -> TrustedRepository:
        return self.cloud.trust(self.state_dir)

    def carry(self, files: dict[str, bytes] | None = None) -> None:
        metadata = self.medium / "metadata"
        metadata.mkdir(parents=True, exist_ok=True)
        for path in metadata.iterdir():
            path.unlink()
        for name, data in (files or self.cloud.repository.files).items():
            (metadata / name).write_bytes(data)

    def lose(self) -> None:
        for name in FILES:
            (self.state_dir / "trust" / name).write_bytes(bytes(80))

    def run(self, *args: str) -> int:
        return cli.main(["floor", *args, "--config", str(self.config)])

    def reset(self, *more: str) -> int:
        return self.run("reset", "--from", str(self.medium), *more)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_it_is_shown_and_nothing_is_written(device: Device, capsys: pytest.CaptureFixture[str]) -> None:
    before = [(device.state_dir / "trust" / name).read_bytes() for name in FILES]
    assert device.run("show") == 0
    assert "root 1, timestamp 2, snapshot 2, targets 1, index 0" in capsys.readouterr().out
    device.lose()
    assert device.run("show", "--json") == ResourceError.exit_code
    assert json.loads(capsys.readouterr().out)["lost"] == "both damaged"
    assert before != [(device.state_dir / "trust" / name).read_bytes() for name in FILES]


def test_a_lost_floor_begins_again_where_the_device_was_and_not_from_zero(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.lose()
    with pytest.raises(ResourceError, match="floor reset"):
        device.trust()
    with pytest.raises(UsageError, match=r"nothing was changed.*--confirm d1"):
        device.reset()
    with pytest.raises(UsageError, match="nothing was changed"):
        device.reset("--confirm", "d2")
    with pytest.raises(ResourceError, match="floor reset"):
        device.trust()
    assert device.reset("--confirm", "d1") == 0
    assert "timestamp 2" in capsys.readouterr().out
    floor = device.trust().floor
    assert (floor.root, floor.timestamp, floor.snapshot, floor.roles) == (
        device.seen.root, device.seen.timestamp, device.seen.snapshot, device.seen.roles,
    )  # fmt: skip
    assert (floor.index, set(floor.counters.values())) == (2, {9})
    outbox = open_outbox(load_device(device.config))
    event = outbox.last("fault")
    outbox.close()
    assert event is not None
    assert (event.kind, event.body["timestamp"]) == (EVENT, floor.timestamp)
    for name in ("timestamp.json", "snapshot.json", "targets.json"):
        (device.state_dir / "trust" / "metadata" / name).write_bytes(bytes(80))
    device.cloud.repository.files = device.older
    with pytest.raises(BundleError, match="rolled back"):
        device.trust().refresh()


def test_a_medium_older_than_what_the_device_still_has_is_refused(device: Device) -> None:
    device.carry(device.older)
    device.lose()
    with pytest.raises(BundleError, match="refused"):
        device.reset("--confirm", "d1")
    with pytest.raises(ResourceError, match="floor reset"):
        device.trust()


def test_a_forged_medium_is_refused(device: Device, tmp_path: Path) -> None:
    device.lose()
    path = device.medium / "metadata" / "timestamp.json"
    path.write_bytes(
        path.read_bytes().replace(b'"version":2', b'"version":3').replace(b'"version": 2', b'"version": 3')
    )
    with pytest.raises(BundleError, match="refused"):
        device.reset("--confirm", "d1")


def test_a_floor_that_is_there_is_never_lowered(device: Device) -> None:
    for damaged in FILES:
        (device.state_dir / "trust" / damaged).write_bytes(b"torn")
        with pytest.raises(UsageError, match="it only rises"):
            device.reset("--confirm", "d1")
        assert device.trust().floor == device.seen  # mends the other file


def test_without_a_record_of_it_it_is_not_done(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.lose()
    monkeypatch.setattr("edge_runtime.outbox.recorder.Recorder.record", lambda self, *items: False)
    with pytest.raises(ResourceError, match="not recorded, and therefore not done"):
        device.reset("--confirm", "d1")
    with pytest.raises(ResourceError, match="floor reset"):
        device.trust()


def test_it_needs_a_medium(device: Device) -> None:
    with pytest.raises(SystemExit):
        device.run("reset")
