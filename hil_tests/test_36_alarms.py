"""An alarm end to end: a silent sensor, the device under its supervisor, the cloud; acknowledged from the command line of the
cloud, shelved on the device, and kept over a kill -9 of `monitor`."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from hil_tests.bench import gudgeon, running, wait_for
from hil_tests.test_35_commands import cloud

DEVICE = """
[device]
id = "demo-01"
state_dir = "state"
[broker]
port = {broker}
[metrics]
port = 0
[cloud]
public_key = "{key}"
[commands]
alarms = true
[[endpoints]]
name = "nobody"
port = 9
[[tags]]
name = "pressure"
endpoint = "nobody"
address = 0
[[assets]]
name = "pump-1"
[assets.alarms]
on_delay_s = 0.5
[[assets.rules]]
name = "silent"
kind = "stale"
tag = "pressure"
limit = 1.0
severity = "high"
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_alarm_from_the_sensor_to_the_cloud_and_back(tmp_path: Path) -> None:
    with cloud(tmp_path) as it:
        key = it.device("key")[1]["public_key"]
        path = tmp_path / "device.toml"
        path.write_text(DEVICE.format(broker=it.port, key=key))
        url = it._where[3]

        def alarms() -> dict[str, Any]:
            return {a["alarm"]: a for a in httpx.get(f"{url}/api/v1/alarms", trust_env=False).json()}

        def processes() -> dict[str, Any]:
            found: dict[str, Any] = json.loads((tmp_path / "state/run/processes.json").read_text())
            return found

        with running("run", "--config", path, cwd=tmp_path, log=tmp_path / "device.log"):
            wait_for("the alarm in the cloud", lambda: alarms().get("pump-1/silent", {}).get("severity") == "high")
            assert set(processes()) == {"monitor", "link"}
            code, ended = it.device("command", "alarm.ack", "alarm=pump-1/silent", "--expires", "20", "--wait")
            assert (code, ended["ended"]) == (0, "done")
            wait_for("acknowledged", lambda: alarms()["pump-1/silent"]["state"] == "acknowledged")
            assert alarms()["pump-1/silent"]["by"] == "cloud"

            code, ended = it.device("command", "alarm.ack", "alarm=pump-1/silent", "--expires", "20", "--wait")
            assert (code, ended["ended"]) == (1, "refused")
            assert "nothing to ack" in ended["reason"]

            os.kill(processes()["monitor"]["pid"], signal.SIGKILL)
            wait_for("another monitor", lambda: processes()["monitor"]["restarts"] == 1)
            shelve = ["alarms", "--config", str(path), "shelve", "pump-1/silent", "--for", "1h", "--by", "ann"]
            wait_for("shelved", lambda: gudgeon(*shelve, cwd=tmp_path).returncode == 0)
            wait_for("told", lambda: alarms()["pump-1/silent"]["state"] == "shelved")
        page = httpx.get(f"{url}/api/v1/events?stream=alarm&device=demo-01", trust_env=False).json()["items"]
        kinds = [e["kind"] for e in page if e["body"]["source"] == "silent"]
        assert kinds == ["raised", "acknowledged", "shelved"]
