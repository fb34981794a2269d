"""The whole line with the shipped bundle and rendered parts: `gudgeon demo` as a user runs it, over Modbus and over OPC UA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hil_tests.bench import gudgeon

FIELDS = (
    "parts", "answered", "unanswered", "faults", "reviews", "recall", "overkill", "escape", "trigger_to_answer_ms", "engine",
    "variant", "bundle_digest", "events_recorded", "events_in_cloud", "unrecorded", "duplicates_in_cloud", "restarts",
)  # fmt: skip


def demo(folder: Path, *args: str) -> dict[str, Any]:
    report = folder / "report.json"
    done = gudgeon("demo", "--report", report, "--keep", folder / "kept", *args, cwd=folder, timeout_s=280)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "live page: http://127.0.0.1:" in done.stdout
    content: dict[str, Any] = json.loads(report.read_text())
    return content


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protocol", ["modbus", pytest.param("opcua", marks=pytest.mark.slow)])
def test_a_demo_accounts_for_every_part(protocol: str, tmp_path: Path) -> None:
    report = demo(tmp_path, "--parts", "60", "--parts-per-s", "15", "--protocol", protocol)
    assert set(FIELDS) <= set(report)
    assert report["parts"] == 60
    assert report["answered"] + report["unanswered"] == 60
    assert report["events_in_cloud"] == report["events_recorded"] == report["answered"]
    assert (report["unrecorded"], report["duplicates_in_cloud"], report["restarts"]) == (0, 0, 0)
    assert report["answered_parts_missing_in_cloud"] == report["events_without_answered_part"] == 0
    assert report["parts_that_differ_from_their_event"] == 0
    assert report["recall"] + report["escape"] == pytest.approx(1.0)
    latency = report["trigger_to_answer_ms"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p999"] <= latency["max"]
    parts = [json.loads(line) for line in (tmp_path / "kept/parts.jsonl").read_text().splitlines()]
    bad = [p for p in parts if p["truth_defect"]]
    assert report["recall"] == pytest.approx(sum(p["diverted"] for p in bad) / len(bad))
    answered = [p for p in parts if p["answered"]]
    assert len(answered) >= 20, "a machine that stands still for a second or two lets some triggers pass"
    for defect, least, most in ((True, 0.8, 1.0), (False, 0.0, 0.3)):
        diverted = [p["diverted"] for p in answered if p["truth_defect"] is defect]
        assert least <= sum(diverted) / len(diverted) <= most


def test_a_demo_that_cannot_start_says_why(tmp_path: Path) -> None:
    done = gudgeon("demo", "--bundle", tmp_path / "none", cwd=tmp_path)
    assert done.returncode == 4
    assert "no such bundle" in done.stderr
    assert gudgeon("demo", "--parts", "0", cwd=tmp_path).returncode == 2
