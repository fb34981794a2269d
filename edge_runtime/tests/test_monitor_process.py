"""`gudgeon run` with an asset and no line: a real Modbus sensor, a signed bundle, an alarm, the operator's answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from edge_runtime import cli, config
from edge_runtime.alarms_cli import duration_s, main
from edge_runtime.errors import EndpointError, UsageError
from edge_runtime.field.modbus import ModbusDriver
from edge_runtime.field.tag import Tag
from edge_runtime.field.tests.modbus_server import Plc
from edge_runtime.outbox.opening import open_outbox
from edge_runtime.supervisor import install_assets
from edge_runtime.tasks import wanted
from edge_runtime.tests.series_bundles import make_series_bundle
from edge_runtime.tests.waiting import PATIENCE_S, until

TEMPERATURE, VIBRATION = Tag("t", "uint16", address=0), Tag("v", "uint16", address=1)
RULE = {"name": "hot", "kind": "above", "tag": "temperature", "limit": 90.0, "severity": "critical"}


def device_toml(folder: Path, port: int, **asset: Any) -> Path:
    tag = {"endpoint": "plc", "type": "uint16", "period_s": 0.1}
    data = {
        "device": {"id": "edge1", "state_dir": "state"},
        "metrics": {"port": 0},
        "broker": {"port": 9},
        "endpoints": [{"name": "plc", "protocol": "modbus-tcp", "port": port}],
        "tags": [{"name": "temperature", "address": 0, **tag}, {"name": "vibration", "address": 1, **tag}],
        "assets": [{"name": "pump", "rules": [RULE], "alarms": {"on_delay_s": 0.2, "off_delay_s": 0.2}, **asset}],
    }
    path = folder / "device.toml"
    path.write_text(tomli_w.dumps(data))
    return path


def listed(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert main(["--config", str(path), "--json"]) == 0
    return {row["alarm"]: row for row in json.loads(capsys.readouterr().out)["alarms"]}


def test_from_a_sensor_to_an_alarm_that_is_acknowledged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_series_bundle(tmp_path / "bundle")
    plc = Plc(dict.fromkeys(range(8), 0), {0: False})
    plc.start()
    hand = ModbusDriver("127.0.0.1", plc.port)
    hand.connect()
    hand.write([(TEMPERATURE, 60), (VIBRATION, 4)])
    try:
        path = device_toml(tmp_path, plc.port, bundles={"anomaly": "bundle"})
        device = config.load_device(path)
        assert not device.has_line
        state_dir = device.device.state_dir
        state_dir.mkdir()
        assert install_assets(device, path) == {}
        command = [sys.executable, "-m", "edge_runtime.monitor_process", "--config", str(path)]
        process = subprocess.Popen(command, env={**os.environ})
        try:
            until(lambda: (state_dir / "alarms.json").exists())
            hand.write([(TEMPERATURE, 95)])
            until(lambda: "pump/hot" in listed(path, capsys))
            row = listed(path, capsys)["pump/hot"]
            assert (row["state"], row["severity"], row["value"]) == ("unacknowledged", "critical", 95)
            assert main(["--config", str(path), "ack", "pump/hot", "--by", "ann"]) == 0
            assert listed(path, capsys)["pump/hot"]["state"] == "acknowledged"
            assert main(["--config", str(path), "ack", "pump/hot"]) == 1
            assert "nothing to ack" in capsys.readouterr().err
            assert main(["--config", str(path), "shelve", "pump/hot", "--for", "2h"]) == 0
            assert 7000 < listed(path, capsys)["pump/hot"]["shelf_left_s"] <= 7200
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
    finally:
        hand.close()
        plc.stop()
    outbox = open_outbox(device)
    lines = [json.loads(record.line) for record in outbox.pending(10_000, 10**8)]
    outbox.close()
    of_hot = [e["kind"] for e in lines if e["stream"] == "alarm" and e["body"]["source"] == "hot"]
    assert of_hot == ["raised", "acknowledged", "shelved"]
    assert {e["kind"] for e in lines if e["stream"] == "health"} == {"asset_model_loaded"}
    assert {"tag.temperature", "tag.vibration", "asset.pump"} <= {e["kind"] for e in lines}


def test_a_bundle_that_is_refused_stops_nothing_and_says_why(tmp_path: Path) -> None:
    make_series_bundle(tmp_path / "unsigned", signed=False)
    path = device_toml(tmp_path, 1, bundles={"anomaly": "unsigned", "rul": "missing"})
    device = config.load_device(path)
    device.device.state_dir.mkdir()
    refused = install_assets(device, path)
    assert "not signed" in refused["asset-pump-anomaly"]
    assert "no such folder" in refused["asset-pump-rul"]


def test_only_what_the_configuration_needs_is_started(tmp_path: Path) -> None:
    path = device_toml(tmp_path, 1)
    device = config.load_device(path)
    names = [task.name for task in wanted(device.has_line, device.has_sensors)]
    assert names == ["monitor", "link"]
    path.write_text(path.read_text() + "\n[plc]\nport = 5020\n")
    assert config.load_device(path).has_line
    assert [t.name for t in wanted(True, False)] == ["control", "link"]
    sensors = '[[endpoints]]\nname = "m"\n[[tags]]\nname = "flow"\nendpoint = "m"\naddress = 4\n'
    path.write_text('[device]\nid = "tags-alone"\nstate_dir = "state"\n' + sensors)  # nothing to watch, values are told
    alone = config.load_device(path)
    assert (alone.has_line, alone.has_sensors) == (False, True)


def test_an_answer_needs_a_running_device(tmp_path: Path) -> None:
    path = device_toml(tmp_path, 1)
    (tmp_path / "state" / "run").mkdir(parents=True)
    with pytest.raises(EndpointError, match="is `gudgeon run` up"):
        main(["--config", str(path), "ack", "pump/hot"])
    assert cli.run("alarms", ["--config", str(path)]) == 0
    with pytest.raises(UsageError, match="which alarm"):
        main(["--config", str(path), "ack"])


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20min", 1200), ("2h", 7200), ("1.5d", 129_600)])
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["2", "h", "-1h", "2 h", "1w"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="as 2h"):
        duration_s(text)
