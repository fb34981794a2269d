"""`gudgeon doctor` tells what is there, in words and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_runtime import doctor
from edge_runtime.tests.bundles import make_bundle


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUDGEON_HOME", str(tmp_path / "home"))
    return make_bundle(tmp_path / "bundle")


def test_a_healthy_device(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--bundle", str(bundle), "--state-dir", str(bundle.parent), "--json"]) == 0
    findings = {f["name"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["package numpy"]["ok"] is True
    assert {"board", "SCHED_FIFO", "fdatasync", "wall clock", "engine onnxruntime"} <= set(findings)
    assert findings["variant fp32"]["ok"] is findings["variant int8"]["ok"] is True
    assert "onnxruntime" in findings["fastest here"]["text"]


def test_a_damaged_bundle_and_a_missing_package(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle / "model.fp32.onnx").write_bytes(b"?")
    monkeypatch.setitem(doctor.PACKAGES, "no-such-package", ("edge", True))
    assert doctor.main(["--bundle", str(bundle), "--state-dir", str(bundle.parent)]) == 1
    text = capsys.readouterr().out
    assert "model.fp32.onnx is corrupt" in text
    assert "not installed; pip install 'gudgeon[edge]'" in text
