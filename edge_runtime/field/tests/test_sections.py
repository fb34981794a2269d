"""Endpoints and tags in device.toml: what is taken, and what each mistake is told as."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.config import load_device
from edge_runtime.errors import ConfigError
from edge_runtime.field.tag import Tag

HEAD = '[device]\nid = "d"\nstate_dir = "state"\n'
PUMP = '[[endpoints]]\nname = "pump"\n'
UA = '[[endpoints]]\nname = "ua"\nprotocol = "opcua"\n'
FLOW = '[[tags]]\nname = "flow"\nendpoint = "pump"\naddress = 4\n'


def load(tmp_path: Path, text: str) -> object:
    path = tmp_path / "device.toml"
    path.write_text(HEAD + text)
    return load_device(path)


def test_endpoints_and_tags(tmp_path: Path) -> None:
    path = tmp_path / "device.toml"
    path.write_text(HEAD + PUMP + FLOW + 'type = "int16"\nscale = 0.1\nlow = 0\nhigh = 90.5\nunit = "m3/h"\n')
    config = load_device(path)
    assert [e.line for e in config.endpoints] == [("modbus-tcp", "127.0.0.1", 502)]
    wanted = Tag("flow", "int16", address=4, scale=0.1, low=0.0, high=90.5, unit="m3/h")
    assert [t.tag for t in config.tags] == [wanted]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PUMP + PUMP, "two endpoints are called 'pump'"),
        (PUMP + FLOW + FLOW, "two tags are called 'flow'"),
        (FLOW, "tag flow: no endpoint 'pump'; known: none"),
        (PUMP + FLOW.replace("address = 4", ""), "tag flow: endpoint pump is modbus-tcp: set address"),
        (UA + FLOW.replace('"pump"', '"ua"'), "tag flow: endpoint ua is opcua: set node"),
        (PUMP + FLOW + "scale = 0\n", "tag flow: scale = 0"),
        (PUMP + FLOW + "low = 2\nhigh = 1\n", "tag flow: expected low below high"),
        (PUMP + FLOW + "count = 9\n", "a wave .* needs rate_hz"),
        (PUMP + FLOW + 'space = "coil"\n', 'tag flow: space = "coil" holds bits'),
        (PUMP + FLOW + "adress = 4\n", r"unknown key tags\[0\].adress; did you mean tags\[0\].address"),
        (PUMP + 'protocol = "modbus-rtu"\n', "endpoint pump: expected serial"),
        (PUMP + 'serial = "/dev/ttyS0"\n', "endpoint pump: serial is for modbus-rtu alone"),
        (PUMP + 'username = "u"\n', "Modbus has no login"),
        (UA + 'host = "10.0.0.1"\nusername = "u"\n', "a password would cross the network to 10.0.0.1 unencrypted"),
        (UA + 'cert_file = "c"\nkey_file = "k"\n', "a login by certificate needs security"),
        (UA + 'security = "Basic128Rsa15"\n', "expected one of none, Basic256Sha256"),
        (UA.replace("opcua", "mqtt") + 'ca_file = "c"\n', "need tls = true"),
        ("endpoints = 3\n", "endpoints must be a list"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, says: str) -> None:
    if text.startswith("endpoints"):
        (tmp_path / "device.toml").write_text(text + HEAD)
        with pytest.raises(ConfigError, match=says):
            load_device(tmp_path / "device.toml")
        return
    with pytest.raises(ConfigError, match=says):
        load(tmp_path, text)
