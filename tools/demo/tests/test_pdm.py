"""The plan and the report of `gudgeon demo pdm`, without processes; the whole demo is marked slow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_runtime import config
from edge_runtime.errors import UsageError
from tools.demo import pdm
from tools.demo.files import Workplace

S = 1_000_000_000


def told(kind: str, at_s: float, source: str = "anomaly", severity: str = "low") -> dict[str, Any]:
    body = {"source": source, "severity": severity, "shares": [["vib_rms", 0.9]]}
    return {"kind": kind, "wall_ns": round(at_s * S), "body": body}


def test_the_plan_ends_with_the_failure_and_begins_before_the_fault() -> None:
    plan = pdm.plan_of(1, 3.0)
    assert 0 < plan.begin_s < plan.failure_s <= 180.0 + 1e-6
    away, back = plan.offline_s
    assert plan.begin_s < away < back < plan.failure_s
    with pytest.raises(UsageError, match="give more minutes"):
        pdm.plan_of(1, 0.5)


def test_the_report_joins_truth_and_events() -> None:
    truth = [
        {"event": "fault_begin", "wall_ns": 100 * S}, {"event": "failure", "wall_ns": 200 * S},
        {"event": "state", "wall_ns": 150 * S, "rul_s": 100 * 3600.0}, {"event": "state", "wall_ns": 210 * S, "rul_s": 0.0},
    ]  # fmt: skip
    alarms = [told("raised", 50), told("raised", 120), told("escalated", 140, severity="high"), told("raised", 205)]
    states = [{"wall_ns": 149 * S, "body": {"remaining": {"smoothed": 90.0}}}, {"wall_ns": 1, "body": {}}]
    plan = pdm.plan_of(1, 3.0)
    found = pdm.build(
        plan, truth, alarms, states, {"alarm": 4, "telemetry": 9}, {"alarm": 4, "telemetry": 8}, (110 * S, 130 * S)
    )
    assert (found["lead_time_s"], found["lead_time_h"], found["false_alarms"]) == (80.0, 160.0, 1)
    assert (found["worst_severity"], found["alarm_tags"]) == ("high", ["vib_rms"])
    assert found["remaining_life_mean_abs_error_h"] == 10.0
    assert (found["alarm_events_while_offline"], found["offline_s"], found["records_missing"]) == (1, 20.0, 1)


def test_no_alarm_and_no_failure_are_told_as_such() -> None:
    found = pdm.build(pdm.plan_of(1, 3.0), [], [], [], {}, {}, None)
    assert found["lead_time_h"] is None
    assert found["alarm_source"] is None
    assert found["records_missing"] == 0


def test_the_devices_file_is_one_that_a_device_reads(tmp_path: Path) -> None:
    device = config.load_device(pdm.device_toml(Workplace(tmp_path), 5030, 1883))
    assert not device.has_line
    assert [asset.name for asset in device.assets] == ["pump-1"]
    assert len(device.tags) == 15


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.timeout(300)
def test_the_whole_demo(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [
        sys.executable,
        "-m",
        "edge_runtime.cli",
        "demo",
        "pdm",
        "--seed",
        "24",
        "--minutes",
        "0.9",
        "--report",
        str(report),
    ]
    subprocess.run(command, check=True, timeout=280)
    found = json.loads(report.read_text())
    assert found["lead_time_h"] > 12
    assert found["false_alarms"] == 0
    assert found["records_missing"] == 0
    assert found["records_delivered"] == found["records_produced"]
    assert found["offline_s"] > 8
