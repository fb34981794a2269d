"""`gudgeon up` for real, and what is written for containers."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cloud.settings import load_cloud
from cloud.store.postgres_server import programs
from edge_runtime.cli import COMMANDS
from tools.chaos.pair import mosquitto
from tools.up.stack import mosquitto_conf

DEPLOY = Path(__file__).parents[3] / "cloud" / "deploy"


def installed() -> bool:
    return mosquitto() is not None and programs() is not None


@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason="needs mosquitto and postgresql: make setup-cloud")
def test_it_starts_everything_tells_where_and_stops_clean(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o755)  # for the user that PostgreSQL runs as
    command = [sys.executable, "-m", "edge_runtime.cli", "up", "--folder", str(tmp_path / "up"), "--json"]
    ports = ["--http-port", "0", "--broker-port", "0", "--devices", "--devices-port", "0", "--devices-broker-port", "0"]
    with subprocess.Popen([*command, *ports], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout
            told = json.loads(process.stdout.readline())
            health = httpx.get(f"{told['page']}api/v1/health").json()
            assert (health["status"], health["broker_connected"]) == ("ok", None)
            settings = load_cloud(Path(told["config"]))
            assert settings.store.address.drivername == "postgresql"
            context = ssl.create_default_context(cafile=str(settings.devices.broker_folder / "roots.pem"))  # type: ignore[operator]
            assert httpx.get(f"{told['devices']}/device/v1/roots", verify=context).status_code == 200
            host, port = told["mqtts"].split(":")
            with socket.create_connection((host, int(port)), 60) as raw:
                assert context.wrap_socket(raw, server_hostname=host).version() == "TLSv1.3"
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_a_port_in_use_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not installed():
        pytest.skip("needs mosquitto and postgresql: make setup-cloud")
    from cloud.sockets import listen, port_of
    from edge_runtime.cli import run

    with listen("127.0.0.1", 0, "") as taken:
        port = str(port_of(taken))
        assert run("up", ["--folder", str(tmp_path), "--broker-port", port]) == 6
    assert f"port {port} on 127.0.0.1 is in use" in capsys.readouterr().err


def test_what_the_containers_are_given_is_valid() -> None:
    assert load_cloud(DEPLOY / "cloud.toml").ingest.here is False
    text = (DEPLOY / "compose.yaml").read_text()
    for command in ("cloud", "ingest"):
        assert f'command: ["{command}", "--config"' in text
        assert command in COMMANDS
    for line in mosquitto_conf(1883).splitlines():
        if line.startswith("max_"):
            assert line in (DEPLOY / "mosquitto.conf").read_text()
