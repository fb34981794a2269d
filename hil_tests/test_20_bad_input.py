"""What a user gets wrong: one clear line each, and the exit code of the error tree."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from edge_runtime.decide.decision import Health, Result
from edge_runtime.field.tests.modbus_server import Plc
from edge_runtime.tests.bundles import SPEC, make_bundle, make_frame
from edge_runtime.wire.manifest import InputSpec
from hil_tests.bench import Registers, gudgeon, one_line, running, wait_for
from tools.chaos.pair import free_port

DEVICE = """
[device]
id = "dev1"
state_dir = "{state}"
[plc]
port = {plc}
[camera]
driver = "folder"
path = "images"
[bundle]
path = "bundle"
[broker]
port = {broker}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUDGEON_HOME", str(tmp_path / "home"))
    write_config(tmp_path)
    return tmp_path


def write_config(place: Path, state: str = "state", more: str = "") -> None:
    text = DEVICE.format(state=state, plc=free_port(), broker=free_port())
    (place / "device.toml").write_text(text + more)


def refused(place: Path, code: int) -> str:
    done = gudgeon("run", "--config", "device.toml", cwd=place)
    assert done.returncode == code, done.stderr
    return one_line(done.stderr)


def test_missing_bundle(place: Path) -> None:
    assert "no such folder" in refused(place, 4)


def test_a_folder_that_is_no_bundle(place: Path) -> None:
    (place / "bundle").mkdir()
    assert "manifest.toml is missing" in refused(place, 4)


def test_a_changed_weight_byte(place: Path) -> None:
    make_bundle(place / "bundle", tampered="weights")
    line = refused(place, 4)
    assert "model.fp32.onnx is corrupt" in line
    assert "copy the bundle again" in line


def test_a_changed_manifest(place: Path) -> None:
    make_bundle(place / "bundle", tampered="manifest")
    assert "it was changed" in refused(place, 4)


def test_an_unsigned_bundle(place: Path) -> None:
    make_bundle(place / "bundle", signed=False)
    assert "not signed" in refused(place, 4)


def test_a_bundle_whose_input_size_is_not_its_networks(place: Path) -> None:
    wrong = InputSpec(SPEC.height * 2, SPEC.width, 1, "area", "mean_std", SPEC.mean, SPEC.std)
    make_bundle(place / "bundle", input=wrong)
    line = refused(place, 4)
    assert "no variant can run" in line
    assert "expected float32" in line


def test_a_bundle_damaged_after_its_installation(place: Path) -> None:
    """Safe mode: nothing ends and nothing starts again and again; every part is answered `fault`, and the PLC reads why."""
    make_bundle(place / "bundle")
    assert gudgeon("install", "bundle", "--config", "device.toml", cwd=place).returncode == 0
    (weights,) = (place / "state/store").glob("*/model.fp32.onnx")
    weights.chmod(0o644)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (place / "images").mkdir()
    Image.fromarray(make_frame(False)).save(place / "images" / "sound.png")
    plc = Plc(dict.fromkeys(range(128), 0), dict.fromkeys(range(128), False))
    plc.start()
    text = DEVICE.format(state="state", plc=plc.port, broker=free_port()).replace('path = "bundle"', "")
    (place / "device.toml").write_text(text)
    registers, log = Registers(plc.port), place / "run.log"
    with running("run", "--config", "device.toml", cwd=place, log=log) as process:
        wait_for("safe mode in the PLC", lambda: registers.read(104) == [Health.SAFE])
        registers.write(1, [1])
        wait_for("the answer", lambda: registers.read(100) == [1])
        assert registers.read(101) == [Result.FAULT]
        assert process.poll() is None
        restarts = json.loads((place / "state/run/processes.json").read_text())["control"]["restarts"]
    registers.close()
    plc.stop()
    assert restarts == 0
    assert "slot set default: safe mode: release" in log.read_text()


def test_an_unknown_key(place: Path) -> None:
    write_config(place, more="[plcs]\nport = 1\n")
    assert "unknown key plcs; did you mean plc?" in refused(place, 3)


def test_a_missing_configuration(place: Path) -> None:
    (place / "device.toml").unlink()
    assert "no such file" in refused(place, 3)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("cloud",), "[http]\nport = {port}\n[broker]\nport = 0\n"),
        (("sim", "line"), "[modbus]\nport = {port}\n"),
    ],
    ids=["cloud", "sim line"],
)
def test_a_port_in_use(place: Path, command: tuple[str, ...], text: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (place / "file.toml").write_text(text.format(port=port))
        done = gudgeon(*command, "--config", "file.toml", cwd=place)
    assert done.returncode == 6, done.stderr
    assert str(port) in one_line(done.stderr)


def test_a_broker_that_is_down_at_start_is_said_once_and_the_device_runs(place: Path) -> None:
    make_bundle(place / "bundle")
    log = place / "run.log"
    with running("run", "--config", "device.toml", cwd=place, log=log) as process:
        wait_for("both processes", lambda: "control runs" in log.read_text() and "broker" in log.read_text())
        assert process.poll() is None
    assert log.read_text().count("no connection to the broker") == 1


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the permission to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> None:
    """Write until the disk takes no more."""
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 4096):
            pass


def test_a_disk_that_is_full_at_start(place: Path, full_disk: Path) -> None:
    make_bundle(place / "bundle")
    write_config(place, state=str(full_disk / "state"))
    fill(full_disk)
    assert "the disk is full; free some space" in refused(place, 6)
    assert not os.path.exists(full_disk / "state/store")


def test_a_disk_that_is_full_at_a_later_start(place: Path, full_disk: Path) -> None:
    make_bundle(place / "bundle")
    write_config(place, state=str(full_disk / "state"))
    installed = gudgeon("install", "bundle", "--config", "device.toml", cwd=place)
    assert installed.returncode == 0, installed.stderr
    fill(full_disk)
    assert "the disk is full" in refused(place, 6)
