"""The command `gudgeon cloud`: settings, exit codes, one clear line, a clean stop."""

from __future__ import annotations

import json
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from cloud.ca.local import LocalAuthority
from cloud.main import main, run
from cloud.settings import CloudSettings, load_cloud
from cloud.sockets import listen
from cloud.store import queries
from cloud.store.opening import open_store
from cloud.tests.databases import commit
from cloud.tests.made import WAIT_S, FakeDevice, batch, decision, until
from edge_runtime.errors import ConfigError

FREE = '[http]\nport = 0\n[broker]\nport = 0\n[store]\nurl = "sqlite:///c.db"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "cloud.toml"
    path.write_text(text)
    return path


def test_the_defaults_and_a_path_beside_the_file(tmp_path: Path) -> None:
    found = load_cloud(write(tmp_path, ""))
    assert (found.http, found.broker, found.simulator) == (
        CloudSettings().http,
        CloudSettings().broker,
        CloudSettings().simulator,
    )
    assert found.store.address.database == str(tmp_path / "cloud.db")
    assert found.store.key_file == tmp_path / "cloud.key"
    absolute = write(tmp_path, '[store]\nurl = "sqlite:////elsewhere/c.db"')
    assert load_cloud(absolute).store.address.database == "/elsewhere/c.db"


BAD = [
    ('[http]\nhost = "0.0.0.0"', "give cert_file and key_file"),
    ('[http]\nhost = "0.0.0.0"\ncert_file = "c"\nkey_file = "k"', "set required = true in [access]"),
    ('[http]\nnames = ["a"]\ncert_file = "c"', "expected cert_file and key_file, or neither"),
    ("[access]\nsession_hours = 0", "session_hours is 0, expected 0.1 to 720"),
    ('[broker]\nhost = "192.168.1.4"', "host is '192.168.1.4'"),
    ('[broker]\nhost = "broker.example"\nembedded = false', "host is 'broker.example'"),
    ("[http]\nport = 70000", "port is 70000"),
    ("[broker]\nembedded = false\nport = 0", "port is 0"),
    ('[store]\nurl = "postgresql://db"', "expected sqlite:///FILE or postgresql://USER@HOST:PORT/NAME"),
    ('[store]\nurl = "mysql://db/x"', "expected sqlite:///FILE"),
    ("[store]\nkeep_days = -1", "keep_days is -1, expected 0 (for ever) to 36500 days"),
    ("[store]\nkeep_days_of = { metrics = 1 }", "keep_days_of.metrics is no stream; expected one of alarm"),
    ('[store]\nkeep_days_of = { metric = "1" }', "store.keep_days_of.metric must be int"),
    ("[ingest]\nhere = false", "set broker.embedded = false"),
    ("[broker]\ntls = true", "the embedded broker knows neither TLS nor users"),
    ('[simulator]\nstats_url = "ftp://x"', "stats_url is 'ftp://x'"),
    ("[http]\nprot = 1", "unknown key http.prot; did you mean http.port?"),
    ("[http", "not valid TOML"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_settings_are_one_clear_line(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=r"cloud\.toml"):
        load_cloud(path)
    assert main(["--config", str(path)]) == 3
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("section", ["http", "broker"])
def test_a_port_in_use_is_named(tmp_path: Path, section: str, capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0, "") as taken:
        port = taken.getsockname()[1]
        path = write(tmp_path, FREE.replace(f"[{section}]\nport = 0", f"[{section}]\nport = {port}"))
        assert main(["--config", str(path)]) == 6
    error = capsys.readouterr().err
    expected = f"gudgeon cloud: port {port} on 127.0.0.1 is in use; stop what listens there, or set {section}.port"
    assert error.startswith(expected)
    assert error.count("\n") == 1


def test_a_store_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, FREE.replace("c.db", "missing/c.db"))
    assert main(["--config", str(path)]) == 6
    error = capsys.readouterr().err
    assert "missing/c.db: cannot be used as the store" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_stops_clean_with_a_page_open(tmp_path: Path, number: signal.Signals) -> None:
    ready = tmp_path / "ready.json"
    command = [sys.executable, "-m", "edge_runtime.cli", "cloud", "--config", str(write(tmp_path, FREE))]
    with subprocess.Popen([*command, "--ready-file", str(ready)], stderr=subprocess.PIPE) as process:
        try:
            until(lambda: ready.exists() or process.poll() is not None)
            assert process.poll() is None, process.stderr and process.stderr.read()
            ports = json.loads(ready.read_text())
            device = FakeDevice(ports["broker_port"])
            assert device.send([decision(1)]) == {"decision": 1}
            url = f"http://127.0.0.1:{ports['http_port']}"
            assert httpx.get(f"{url}/api/v1/summary").json()["parts"] == 1
            with (
                httpx.stream("GET", f"{url}/api/v1/stream") as stream,
                socket.create_connection(("127.0.0.1", ports["broker_port"])),
            ):
                assert next(stream.iter_text())
                process.send_signal(number)
                assert process.wait(WAIT_S) == 0
            device.close()
        finally:
            process.kill()
        assert process.stderr
        lines = process.stderr.read().decode().splitlines()
    assert [json.loads(line)["msg"] for line in lines] == ["ingest connected", "cloud serves"]


def test_the_listener_for_devices_serves_where_it_is_asked_for(tmp_path: Path) -> None:
    told: queue.Queue[dict[str, int]] = queue.Queue()
    stop, settings = threading.Event(), load_cloud(write(tmp_path, FREE + "[devices]\nserve = true\nport = 0\n"))
    thread = threading.Thread(target=run, args=(settings, told.put, stop))
    thread.start()
    try:
        port = told.get(timeout=WAIT_S)["devices_port"]
        (tmp_path / "root.pem").write_bytes(LocalAuthority(settings.ca_folder).roots())
        context = ssl.create_default_context(cafile=str(tmp_path / "root.pem"))
        found = httpx.get(f"https://localhost:{port}/device/v1/roots", verify=context)
        assert found.json()["roots"] == (tmp_path / "root.pem").read_text()
    finally:
        stop.set()
        thread.join(WAIT_S)
    assert settings.ca_folder == tmp_path / "ca"


def test_it_lets_go_of_what_is_older_than_it_is_to_keep(tmp_path: Path) -> None:
    told: queue.Queue[dict[str, int]] = queue.Queue()
    stop, settings = threading.Event(), load_cloud(write(tmp_path, FREE + "keep_days = 30\n"))
    engine = open_store(settings.store.address)
    commit(engine, [batch([decision(n) for n in range(1, 6)])], time.time_ns() - 31 * 86_400_000_000_000)
    thread = threading.Thread(target=run, args=(settings, told.put, stop))
    thread.start()
    try:
        url = f"http://127.0.0.1:{told.get(timeout=WAIT_S)['http_port']}"
        assert until(lambda: len(queries.events(engine, {})) == 1)
        told_by = httpx.get(f"{url}/metrics").text
        assert 'gudgeon_store_pruned_events_total{stream="decision"} 4' in told_by
    finally:
        stop.set()
        thread.join(WAIT_S)
        engine.dispose()
