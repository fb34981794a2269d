"""Configuration: what is wrong is named with file, key, what was expected and the nearest key."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from edge_runtime import config
from edge_runtime.config import DeviceConfig, PlcMap
from edge_runtime.errors import ConfigError

REQUIRED = '[device]\nid = "edge1"\nstate_dir = "state"\n'


def load(folder: Path, text: str) -> DeviceConfig:
    file = folder / "device.toml"
    file.write_text(text)
    return config.load_device(file)


def test_the_required_keys_alone_give_every_default(tmp_path: Path) -> None:
    loaded = load(tmp_path, REQUIRED)
    for section in fields(DeviceConfig):
        if section.name in ("endpoints", "tags", "assets"):
            assert getattr(loaded, section.name) == ()
        elif section.name != "device":
            assert is_dataclass(section.default_factory)
            assert getattr(loaded, section.name) == section.default_factory()
    assert loaded.place.topic("events") == "v1/acme/site1/area1/line1/cell1/edge1/events"


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    more = '[bundle]\npath = "b"\nshadow = "/abs/s"\nrecipes = { 7 = "b7" }\n[camera]\npath = "../images"\n'
    loaded = load(tmp_path, REQUIRED + more)
    assert loaded.device.state_dir == tmp_path / "state"
    assert loaded.bundle.path == tmp_path / "b"
    assert loaded.bundle.shadow == Path("/abs/s")
    assert loaded.bundle.recipes == {"7": tmp_path / "b7"}
    assert loaded.camera.path == tmp_path.parent / "images"


def test_a_whole_number_is_good_enough_for_a_float(tmp_path: Path) -> None:
    assert load(tmp_path, REQUIRED + "[plc]\npoll_ms = 2\n").plc.poll_ms == 2.0


def test_commands_name_their_points(tmp_path: Path) -> None:
    points = '[commands]\nallow = ["speed"]\n[commands.points.speed]\naddress = 110\nlow = 0\nhigh = 500\n'
    loaded = load(tmp_path, REQUIRED + points).commands
    assert list(loaded.allowed) == ["speed"]
    assert (loaded.allowed["speed"].high, loaded.allowed["speed"].while_running) == (500.0, False)


POINT = "[commands.points.p]\nlow = 0\nhigh = 1\n"
WRONG = [
    (REQUIRED + POINT + "address = 101\n", "commands.points.p: address 101 belongs to the handshake"),
    (REQUIRED + POINT + 'address = 99\ntype = "uint32"\n', "address 99 belongs to the handshake"),
    (REQUIRED + POINT + "address = 3\n", "address 3 belongs to the handshake"),
    (REQUIRED + POINT + 'address = 100\ntype = "bool"\nspace = "coil"\n', "address 100 belongs to the handshake"),
    (REQUIRED + "[plc.map]\nlot = 40\n" + POINT + "address = 41\n", "address 41 belongs to the handshake"),
    (REQUIRED + POINT, "missing key commands.points.p.address"),
    (REQUIRED + '[commands]\nallow = "speed"\n', "commands.allow must be a list, found 'speed'"),
    (REQUIRED + "[commands]\nallow = [1]\n", "commands.allow[0] must be str, found 1"),
    (REQUIRED + '[commands]\nallow = ["speed"]\n', "which has no table [commands.points.speed]"),
    (REQUIRED + "[link]\nbacklog_share = 1.0\n", "link: backlog_share = 1.0: expected 0.05 to 0.95"),
    (REQUIRED + "[link]\nrate_bytes_per_s = 5\n", "link: rate_bytes_per_s = 5: expected 0 or 128 to 1e+09"),
    (REQUIRED + "[plc]\nhots = 'x'\n", "unknown key plc.hots; did you mean plc.host?"),
    (REQUIRED + "[plc.map]\npart_sek = 1\n", "unknown key plc.map.part_sek; did you mean plc.map.part_seq?"),
    (REQUIRED + "[zzz]\n", "unknown key zzz; known keys: device, plc"),
    (REQUIRED + "[plc]\nport = '502'\n", "plc.port must be int, found '502'"),
    (REQUIRED + "[plc]\nport = true\n", "plc.port must be int, found True"),
    (REQUIRED + "[plc]\nport = 70000\n", "plc: port = 70000: expected 0 to 65535"),
    (REQUIRED + "[broker]\nport = -1\n", "broker: port = -1: expected 0 to 65535"),
    (REQUIRED + "[broker]\nkeepalive_s = 0\n", "keepalive_s = 0: expected more than 0"),
    (REQUIRED + "[plc]\npoll_ms = nan\n", "plc.poll_ms must be a finite number"),
    (REQUIRED + "[plc]\npoll_ms = 0\n", "plc: poll_ms = 0.0: expected more than 0"),
    (REQUIRED + "[plc]\nunit_id = 300\n", "unit_id from 0 to 255"),
    (REQUIRED + "[plc.map]\nresult = -1\n", "plc.map: result = -1: expected an address from 0 to 65535"),
    (REQUIRED + "[plc.map]\nlot = 65536\n", "plc.map: lot = 65536: expected an address from -1 to 65535"),
    (REQUIRED + "[control]\nrealtime = 1\n", "control.realtime must be bool, found 1"),
    (REQUIRED + "[control]\nreview_max_bytes = -1\n", "review_max_bytes = -1"),
    (REQUIRED + "[plc]\nprotocol = 'profinet'\n", "plc.protocol is 'profinet', expected one of modbus, opcua"),
    (REQUIRED + "[metrics]\nhost = '0.0.0.0'\n", "metrics: host is '0.0.0.0', expected one of 127.0.0.1"),
    (REQUIRED + "[camera]\nwidth = 0\n", "camera: width = 0: expected more than 0"),
    (REQUIRED + "[bundle]\nrecipes = { 7 = 7 }\n", "bundle.recipes.7 must be Path, found 7"),
    (REQUIRED + "[bundle]\npath = 3\n", "bundle.path must be Path, found 3"),
    (REQUIRED + "plc = 3\n", "device.plc"),
    ("plc = 3\n" + REQUIRED, "plc must be a table, found 3"),
    ("[device]\nid = 'edge1'\n", "missing key device.state_dir"),
    ("", "missing key device"),
    ("[device]\nid = 'a b'\nstate_dir = 's'\n", "device = 'a b': expected 1 to 64 characters"),
    ("[device\n", "not valid TOML"),
]


@pytest.mark.parametrize(("text", "told"), WRONG, ids=[told[:40] for _, told in WRONG])
def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert told in str(caught.value)
    assert str(tmp_path / "device.toml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        config.load_device(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load_device(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"id = '\xff'")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load_device(tmp_path / "latin.toml")


def test_the_default_map_is_the_designs() -> None:
    m = PlcMap()
    assert (m.line_state, m.part_seq, m.encoder, m.belt_speed) == (0, 1, 2, 4)
    assert (m.result_seq, m.result, m.score, m.heartbeat, m.health, m.reject_coil) == (100, 101, 102, 103, 104, 100)
    assert (m.recipe, m.lot, m.serial) == (-1, -1, -1)


SENSOR = """
[[endpoints]]
name = "pump"
[[tags]]
name = "bearing"
endpoint = "pump"
address = 0
[[assets]]
name = "pump-1"
"""


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('[assets.running]\ntag = "bearin"', "assets pump-1: no .* named 'bearin'; did you mean 'bearing'"),
        ('[[assets.rules]]\nname = "a"\nkind = "above"\ntag = "bearing.rms"', "no .* named 'bearing.rms'"),
        ('[[assets.rules]]\nname = "samples"\nkind = "above"\ntag = "bearing"', "none of anomaly, remaining, samples"),
        (
            '[[assets.rules]]\nname = "a"\nkind = "over"\ntag = "bearing"',
            "rules.0..kind is 'over', expected one of above",
        ),
        ('[[assets]]\nname = "pump-1"', "two have the same name"),
        ('[[assets]]\nname = "Pump 1"', "1 to 18 characters of a-z 0-9 -"),
        ("[assets.drift]\nsamples = 3", "samples from 30 to 5000"),
        ("[assets.alarms]\non_delay = 3", "unknown key assets.0..alarms.on_delay; did you mean .*on_delay_s"),
    ],
)
def test_an_asset_that_makes_no_sense_is_refused(tmp_path: Path, more: str, says: str) -> None:
    assert load(tmp_path, REQUIRED + SENSOR).assets[0].name == "pump-1"
    with pytest.raises(ConfigError, match=says):
        load(tmp_path, REQUIRED + SENSOR + more)
