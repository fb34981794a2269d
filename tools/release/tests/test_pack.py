"""`gudgeon pack`: the same sources give the same bytes, and what comes out is what a device takes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from edge_runtime import cli
from edge_runtime.outbox import schema
from edge_runtime.update import environment
from edge_runtime.update.config_bundle import read_config_release
from edge_runtime.wire import archive, release
from edge_runtime.wire.release import Needs
from tools.release import main as pack
from tools.release.dependencies import lock
from tools.release.wheel import build_wheel

HERE = environment.this_machine()


def test_the_wheel_holds_the_device_and_no_tests(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, "1.0")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"edge_runtime/launcher.py", "edge_runtime/update/self_check.py"} <= set(names)
    assert any(n.startswith("edge_runtime/update/keys/") for n in names)
    assert not [n for n in names if "/tests/" in n or n.split("/")[0] not in ("edge_runtime", "gudgeon-1.0.dist-info")]
    (tmp_path / "again").mkdir()
    assert build_wheel(tmp_path / "again", "1.0").read_bytes() == wheel.read_bytes()


def test_versions_are_those_that_are_installed() -> None:
    found = lock(["edge"], Needs(HERE.python, HERE.machine, "2.36"))
    assert {"numpy", "onnxruntime", "cryptography", "tuf", "cffi"} <= set(found)
    assert not {"fastapi", "pytest", "torch", "gudgeon"} & set(found)
    assert "ai-edge-litert" not in lock(["edge"], Needs("3.14", HERE.machine, "2.36"))


def test_a_runtime_release_from_wheels_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pack, "lock", lambda extras, target: {})
    monkeypatch.setattr(pack, "collect", lambda locked, target, folder, wheels: sorted(folder.glob("*.whl")))
    for name in ("a.tar", "b.tar"):
        assert cli.run("pack", ["runtime", "--out", str(tmp_path / name), "--version", "7", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0]["sha256"] == told[1]["sha256"]
    assert told[0]["size_bytes"] == (tmp_path / "a.tar").stat().st_size
    archive.unpack(tmp_path / "a.tar", tmp_path / "r")
    manifest = environment.read_release(tmp_path / "r")
    assert (manifest.version, manifest.outbox, manifest.machine) == ("7", schema.VERSION, release.ANY)
    assert cli.run("pack", ["runtime", "--out", str(tmp_path / "a.tar")]) == 2


def test_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "line.toml"
    source.write_text("[control]\ndeadline_ms = 25.0\n")
    out = ["--out", str(tmp_path / "c.tar"), "--version", "3", "--json"]
    assert cli.run("pack", ["config", str(source), *out]) == 0
    archive.unpack(tmp_path / "c.tar", tmp_path / "c")
    assert read_config_release(tmp_path / "c").version == "3"
    capsys.readouterr()
    source.write_text("[broker]\nhost = 'x'\n")
    assert cli.run("pack", ["config", str(source), "--out", str(tmp_path / "d.tar"), "--version", "3"]) == 3
    assert "[broker] is the device's own" in capsys.readouterr().err
    assert not (tmp_path / "d.tar").exists()


def test_wheels_that_cannot_be_had_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "r.tar"), "--wheels", str(tmp_path)]
    assert cli.run("pack", ["runtime", *out]) == 1
    assert "wheels cannot be had: ERROR" in capsys.readouterr().err
    assert cli.run("pack", ["runtime", *out, "--extras", "edge,nonsense"]) == 2
