"""Desired state: who may ask, what is kept, what is reported."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.errors import ConfigError, ResourceError
from edge_runtime.identity import public_text
from edge_runtime.link.cloud_key import KEY_PATH, cloud_key
from edge_runtime.link.desired import TOLD_LIMIT, DesiredState
from edge_runtime.wire.desired import Desired, Reported, read_reported
from edge_runtime.wire.signed import seal

CLOUD = Ed25519PrivateKey.generate()


class Device:
    def __init__(self, folder: Path, with_key: bool = True) -> None:
        self.folder, self.with_key = folder, with_key
        self.applied: list[dict[str, Any]] = []
        self.reports: list[Reported] = []
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.restart()

    def restart(self) -> None:
        self.state = DesiredState(
            self.folder / "desired.json",
            "dev1",
            CLOUD.public_key() if self.with_key else None,
            lambda state: self.applied.append(dict(state)),
            lambda payload: self.reports.append(read_reported(payload)),
            lambda stream, kind, body: self.events.append((stream, kind, dict(body))),
        )

    def ask(
        self, version: int, state: dict[str, Any], device: str = "dev1", key: Ed25519PrivateKey = CLOUD
    ) -> Reported:
        self.state.receive(seal("desired", Desired(device, version, 5, state).body(), key.sign))
        return self.reports[-1]


def test_what_is_asked_for_holds_is_reported_and_survives(tmp_path: Path) -> None:
    device = Device(tmp_path)
    assert device.applied == [{}]
    assert device.ask(3, {"metered": True}) == Reported(3, {"metered": True})
    device.ask(3, {"metered": True})  # retained: it comes again with each connection
    assert device.applied == [{}, {"metered": True}]
    device.restart()
    assert device.applied[-1] == {"metered": True}
    assert device.ask(4, {}) == Reported(4, {})
    assert device.applied[-1] == {}
    assert [kind for _, kind, _ in device.events] == ["desired_applied", "desired_applied"]


def test_an_older_version_is_refused_also_after_a_restart(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.ask(3, {"metered": True})
    device.restart()
    found = device.ask(2, {"metered": False})
    assert (found.version, found.state) == (3, {"metered": True})
    assert found.refused is not None
    assert found.refused.version == 2


@pytest.mark.parametrize("state", [{"metered": True, "reboot": True}, {"metered": True, "backlog_share": 2}])
def test_one_wrong_key_refuses_the_whole(tmp_path: Path, state: dict[str, Any]) -> None:
    device = Device(tmp_path)
    device.ask(1, {"rate_bytes_per_s": 1000})
    found = device.ask(2, state)
    assert (found.version, found.state) == (1, {"rate_bytes_per_s": 1000})
    assert found.refused is not None
    assert len(device.applied) == 2
    assert device.ask(3, {"metered": True}).refused is None


def test_only_the_cloud_of_this_device_may_ask_and_only_this_device(tmp_path: Path) -> None:
    device = Device(tmp_path)
    for found in (
        device.ask(1, {"metered": True}, key=Ed25519PrivateKey.generate()),
        device.ask(1, {"metered": True}, device="dev2"),
    ):
        assert found.version == 0
        assert found.refused is not None
    payload = seal("command", Desired("dev1", 1, 5, {}).body(), CLOUD.sign)
    device.state.receive(payload)
    device.state.receive(b"rubbish")
    device.state.receive(b"")
    assert device.applied == [{}]


def test_without_a_key_nothing_is_taken_and_that_is_told_once(tmp_path: Path) -> None:
    device = Device(tmp_path, with_key=False)
    for version in range(1, 4):
        found = device.ask(version, {"metered": True})
    assert found.refused is not None
    assert "no key of a cloud" in found.refused.reason
    assert [kind for _, kind, _ in device.events] == ["desired_refused"]


def test_refusals_do_not_fill_the_disk(tmp_path: Path) -> None:
    device = Device(tmp_path)
    for n in range(3 * TOLD_LIMIT):
        device.state.receive(b"x" * (20_000 + n))
    assert len(device.events) == TOLD_LIMIT


def test_a_disk_that_refuses_leaves_what_held(tmp_path: Path) -> None:
    device = Device(tmp_path / "gone")
    found = device.ask(1, {"metered": True})
    assert found.version == 0
    assert found.refused is not None
    assert "desired.json" in found.refused.reason


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 1}', '{"version": 1, "state": {"metered": 3}}', '{"version": "a"}']
)
def test_a_damaged_file_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "desired.json").write_text(text)
    device = Device(tmp_path)
    assert device.applied == [{}]
    assert device.ask(1, {"metered": True}).version == 1
    assert json.loads((tmp_path / "desired.json").read_text())["version"] == 1


def test_a_full_outbox_stops_nothing(tmp_path: Path) -> None:
    def full(stream: str, kind: str, body: Any) -> None:
        raise ResourceError("outbox.db: the disk is full; free some space")

    applied: list[Any] = []
    path, key = tmp_path / "desired.json", CLOUD.public_key()
    state = DesiredState(path, "dev1", key, applied.append, lambda payload: None, full)
    for version in (2, 2, 1):
        state.receive(seal("desired", Desired("dev1", version, 5, {"metered": True}).body(), CLOUD.sign))
    assert applied == [{}, {"metered": True}]


def test_the_clouds_key_is_configured_or_in_its_file(tmp_path: Path) -> None:
    assert cloud_key(tmp_path) is None
    text = public_text(CLOUD)
    found = cloud_key(tmp_path, text)
    assert found is not None
    assert found.public_bytes_raw() == base64.b64decode(text)
    (tmp_path / KEY_PATH).parent.mkdir()
    (tmp_path / KEY_PATH).write_text(text + "\n")
    found = cloud_key(tmp_path)
    assert found is not None
    assert found.public_bytes_raw() == base64.b64decode(text)
    for wrong in ("x", text[:20], "ü"):
        with pytest.raises(ConfigError, match=r"cloud\.public_key"):
            cloud_key(tmp_path, wrong)
    (tmp_path / KEY_PATH).write_text("rubbish")
    with pytest.raises(ConfigError, match=r"cloud\.pub"):
        cloud_key(tmp_path)
