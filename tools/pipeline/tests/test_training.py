"""The whole way on rendered parts, small: train, quantise, pack, install. Needs the training environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.errors import MissingExtraError
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer import select
from edge_runtime.update import keyring, trust
from tools.pipeline import evaluate, launch


def test_without_a_training_environment_the_line_that_makes_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(launch.VARIABLE, raising=False)
    monkeypatch.setattr(launch, "REPOSITORY", tmp_path)
    with pytest.raises(MissingExtraError, match="run: make setup-train") as error:
        launch.train(["surface"])
    assert error.value.exit_code == 7


def test_the_exit_code_of_the_run_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text("#!/bin/sh\nexit 8\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv(launch.VARIABLE, str(stand_in))
    assert launch.train(["surface"]) == 8


def _available() -> bool:
    try:
        python = launch.train_python()
    except MissingExtraError:
        return False
    return subprocess.run([str(python), "-c", "import torch, onnx"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.timeout(240)
def test_a_tiny_run_ends_in_a_bundle_that_a_device_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if not _available():
        pytest.skip("the training environment is not there; run: make setup-train")
    monkeypatch.setenv("GUDGEON_HOME", str(tmp_path / "home"))
    data, out = tmp_path / "parts", tmp_path / "bundle"
    render = [sys.executable, "-m", "firmware_sim.images_cli", "--out", str(data), "--n", "60"]
    subprocess.run(render, check=True, cwd=launch.REPOSITORY, env={**os.environ, "PYTHONPATH": str(launch.REPOSITORY)})
    assert launch.train(["surface", "--data", str(data), "--out", str(out), "--quick", "--threads", "1", "--json"]) == 0
    text = capfd.readouterr().out
    summary = json.loads(text[text.index("{") :])
    assert summary["file_bytes"]["model.int8.onnx"] < summary["file_bytes"]["model.fp32.onnx"]
    bundle = bundles.load(out)
    signature = (out / "manifest.sig").read_bytes()
    trust.verify((out / "manifest.toml").read_bytes(), signature, keyring.trusted_keys(tmp_path))
    choice = select.choose(bundle, tmp_path / "engines.json")
    assert not choice.refused
    report = evaluate.evaluate(out, data, "test")
    assert report["n"] > 0
    assert report["fp32"]["ece"] >= 0.0

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    arguments = ["surface", "--data", str(data), "--quick", "--out"]
    assert launch.train([*arguments, str(tmp_path / "mine")]) == 8
    assert launch.train(["surface", "--data", str(tmp_path / "nowhere"), "--out", str(out), "--quick"]) == 8
    errors = capfd.readouterr().err
    assert "is not replaced" in errors
    assert "no such file" in errors
    assert "Traceback" not in errors
