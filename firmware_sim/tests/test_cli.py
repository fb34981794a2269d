from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from firmware_sim import cli, config
from firmware_sim.config import Config
from firmware_sim.errors import ConfigError
from firmware_sim.tests.folders import write_folder

ANY_PORT = "[modbus]\nport = 0\n[opcua]\nenabled = false\n[camera]\nport = 0\n[stats]\nport = 0\n"
DOCS = Path(__file__).parents[2] / "docs" / "reference" / "simulator.md"


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gudgeon sim: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[line]\nparts_per_sec = 4", "unknown key 'line.parts_per_sec'; did you mean 'parts_per_s'?"),
        ("[lnie]\nparts = 4", "unknown key 'lnie'; did you mean 'line'?"),
        ("[line]\nparts = 1.5", "line.parts is 1.5, expected a whole number"),
        ("[line]\nparts = true", "line.parts is True, expected a whole number"),
        ("[line]\nparts_per_s = 0", "line.parts_per_s is 0.0, expected 0.01 to 200"),
        ("[source]\nkind = 'films'", "source.kind is 'films', expected one of rendered, folder"),
        ("[source]\nkind = 'folder'", "source.images is not set"),
        ("[recipe]\ncodes = []", "recipe.codes is empty"),
        ("[recipe]\ncodes = [1, 99999]", "recipe.codes is 99999"),
        ("[modbus]\nport = 70000", "modbus.port is 70000, expected 0 to 65535"),
        ("line = 3", "line is 3, expected a table"),
        ("[line", "cannot be read as TOML"),
    ],
)
def test_mistakes_in_the_file_are_one_line_and_exit_code_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    file = tmp_path / "line.toml"
    file.write_text(text)
    assert cli.main(["line", "--config", str(file)]) == 3
    assert expected in one_line(capsys)


def test_other_mistakes_are_one_line_with_their_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "line.toml"
    file.write_text(ANY_PORT)
    line = ["line", "--config", str(file)]
    assert cli.main(["lien"]) == 2
    assert "did you mean 'line'" in one_line(capsys)
    assert cli.main([*line, "--parts", "many"]) == 2
    assert "invalid int value: 'many'" in one_line(capsys)
    assert cli.main(["line", "--config", str(tmp_path / "none.toml")]) == 3
    assert "no such file" in one_line(capsys)
    assert cli.main([*line, "--images", str(tmp_path / "none")]) == 8
    assert "no such folder" in one_line(capsys)
    images = ["--images", str(write_folder(tmp_path / "images"))]
    assert cli.main([*line, *images, "--scenario", str(tmp_path / "none.toml")]) == 3
    assert "no such file" in one_line(capsys)
    assert cli.main([*line, *images, "--log", str(tmp_path / "none" / "p.jsonl")]) == 6
    assert "part log" in one_line(capsys)
    assert cli.main([*line, *images, "--parts", "-1"]) == 3
    assert "line.parts is -1" in one_line(capsys)


@pytest.mark.parametrize("section", ["modbus", "camera", "stats", "opcua"])
def test_a_port_in_use_is_one_line_and_exit_code_6(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], section: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = "".join(
            f"[{name}]\nport = {port if name == section else 0}\n"
            + (f"enabled = {str(name == section).lower()}\n" * (name == "opcua"))
            for name in ("modbus", "opcua", "camera", "stats")
        )
        file = tmp_path / "line.toml"
        file.write_text(ports)
        code = cli.main(["line", "--config", str(file), "--images", str(write_folder(tmp_path / "images"))])
        assert code == 6
        assert f"{section}: cannot listen on 127.0.0.1:{port}" in one_line(capsys)


def test_it_runs_to_completed_serves_on_and_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    (tmp_path / "line.toml").write_text(
        ANY_PORT + '[line]\ntransition_ms = 5\n[source]\nkind = "folder"\nimages = "images"\n'
    )
    write_folder(tmp_path / "images")
    command = [sys.executable, "-m", "edge_runtime.cli", "sim", "line", "--config", str(tmp_path / "line.toml")]
    options = [
        "--parts",
        "3",
        "--parts-per-s",
        "20",
        "--ready-file",
        str(tmp_path / "ready"),
        "--log",
        str(tmp_path / "log"),
    ]
    process = subprocess.Popen([*command, *options], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        deadline = time.monotonic() + 60
        while (
            time.monotonic() < deadline
            and len((tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []) < 3
        ):
            time.sleep(0.05)
        ports = json.loads((tmp_path / "ready").read_text())
        assert set(ports) == {"modbus_port", "camera_port", "stats_port"}
        with socket.create_connection(("127.0.0.1", ports["stats_port"]), 60) as connection:
            connection.sendall(b"GET /nothing HTTP/1.1\r\n\r\n")
            assert connection.recv(64).startswith(b"HTTP/1.0 404")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_options_override_the_file_and_paths_are_from_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "line.toml"
    file.write_text('log = "p.jsonl"\n[line]\nparts = 5\nparts_per_s = 3\n')
    loaded = config.load(file)
    assert loaded.log == tmp_path / "p.jsonl"
    assert loaded.line.parts_per_s == 3.0
    changed = cli._with_options(cli._parser().parse_args(["--config", str(file), "--parts", "9", "--images", "x"]))
    assert (changed.line.parts, changed.line.parts_per_s, changed.source.kind) == (9, 3.0, "folder")
    with pytest.raises(ConfigError):
        config.load(tmp_path)


def test_the_file_in_the_reference_page_is_the_default_config(tmp_path: Path) -> None:
    text = DOCS.read_text(encoding="utf-8").split("```toml\n# line.toml", 1)[1].split("```", 1)[0]
    file = tmp_path / "line.toml"
    file.write_text(text)
    assert config.load(file) == Config()
