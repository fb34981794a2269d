"""Crashes at every operation, thinned out, and a hundred random kills: what `make crash-points` and `make kills` run whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.chaos.pair import mosquitto
from tools.chaos.shim import compiler
from tools.crash.models import MODELS
from tools.crash.table import SCENARIOS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
KILLS = 100


def printed(folder: Path, *command: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", *command, "--json"], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(900)
@pytest.mark.skipif(compiler() is None, reason="needs a C compiler: apt-get install gcc libc6-dev")
def test_crash_points(tmp_path: Path) -> None:
    found = printed(tmp_path, "tools.crash", "--every", "20", "--within", "1", "--real", "1")
    assert [s["scenario"] for s in found["scenarios"]] == list(SCENARIOS)
    for s in found["scenarios"]:
        assert (s["failed"], s["failed_in_recovery"], s["disagree"]) == ({}, {}, []), s["examples"]
        assert set(s["points"]) == set(MODELS)
        assert s["real"] == 1
        assert sum(s["points_in_recovery"].values()) > 0
    assert found["points"] > 1000


def test_kills(tmp_path: Path) -> None:
    found = printed(tmp_path, "tools.kills", "--kills", str(KILLS), "--seed", "7")
    wrong = ("lost", "bulk_lost", "double", "disordered", "findings", "broken_links", "gaps")
    assert {name: found[name] for name in wrong} == dict.fromkeys(wrong, 0), found["examples"]
    assert sum(found["kills"].values()) + sum(map(len, found["ended_by_themselves"].values())) == KILLS
    assert all(times > 5 for times in found["kills"].values())
    assert {"producer", "link", *(("ingest-1", "ingest-2") if mosquitto() else ("cloud",))} == set(found["kills"])
    assert found["produced"] == found["delivered"] <= found["records"]
    assert found["acknowledged"] > KILLS
