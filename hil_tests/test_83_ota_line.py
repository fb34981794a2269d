"""A whole device on a running line, and a real cloud: a good model is confirmed, one that disagrees never answers a part."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from edge_runtime.errors import GudgeonError
from edge_runtime.update import slots
from edge_runtime.update.wake import SOCKET_PATH, wake
from edge_runtime.wire import manifest
from edge_runtime.wire.update_status import ENDED
from hil_tests.bench import wait_for
from hil_tests.line import line_with_device
from tools.bench.swapping import variant
from tools.demo.main import DEFAULT_BUNDLE
from tools.kills.update import CloudHere

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]
DEVICE_ID = "edge-01"


def state_of(state_dir: Path, sha256: str) -> str:
    """Where this release has come to, once it is at an end."""
    try:
        record = slots.read(state_dir)
    except GudgeonError:
        return ""
    if record.job is None or record.job.release.sha256 != sha256 or record.state not in ENDED:
        return ""
    return record.state.value


def disagreeing(folder: Path) -> Path:
    """The shipped bundle with thresholds that reject every part."""
    bundle = variant(DEFAULT_BUNDLE, folder, "rejects-all")
    text = tomllib.loads((bundle / manifest.MANIFEST).read_text())
    text["thresholds"] = {**text["thresholds"], "reject": 0.0, "review": 0.0}
    (bundle / manifest.MANIFEST).write_text(tomli_w.dumps(text))
    return bundle


def told(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "edge_runtime.cli", "update", "status", "--json", "--config", "device.toml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_good_model_is_confirmed_and_a_bad_one_is_refused(tmp_path: Path) -> None:
    cloud, folder = CloudHere(tmp_path / "cloud"), tmp_path / "line"
    folder.mkdir()
    state_dir = folder / "state"
    cloud.enrol(state_dir, DEVICE_ID)
    change: dict[str, dict[str, Any]] = {
        "device": {"id": DEVICE_ID},
        "update": {"url": f"https://localhost:{cloud.port}", "poll_s": 2.0, "allow_local": True},
        "trial": {
            "parts": 20,
            "timeout_s": 200.0,
            "soak_s": 1.0,
            "slow_ratio": 20.0,
            "hang_ms": 5000,
            "deadline_share": 1.0,
        },
    }
    try:
        with line_with_device(folder, 100_000, 10.0, change=change) as line:
            wait_for("the updater's first question", (state_dir / "run" / "update.json").exists, 60.0)
            first = slots.active(state_dir)
            good = cloud.publish_file(1, variant(DEFAULT_BUNDLE, tmp_path / "good", "2"))
            assert wake(state_dir / SOCKET_PATH)
            assert wait_for("the end of the good one", partial(state_of, state_dir, good), 240.0) == "confirmed"
            wait_for("the end of its rollout", partial(cloud.is_over, 1), 60.0)
            bad = cloud.publish_file(2, disagreeing(tmp_path / "bad"))
            assert wake(state_dir / SOCKET_PATH)
            assert wait_for("the end of the bad one", partial(state_of, state_dir, bad), 240.0) == "refused"
            status = told(folder)["slots"]["default"]
            kinds = [e["kind"] for e in line.events("health") if e["kind"].startswith("update_")]
            digests = {e["body"]["bundle_digest"] for e in line.events("decision")}
            answered = [part for part in line.parts() if part.get("result") is not None]
            restarts = json.loads((state_dir / "run" / "processes.json").read_text())
    finally:
        cloud.stop()
    assert (status["state"], status["confirmed"]["sha256"], status["previous"]["sha256"]) == (
        "refused", good, first.name if first else "",
    )  # fmt: skip
    assert kinds == [
        "update_assigned", "update_installed", "update_running", "update_confirmed",
        "update_assigned", "update_installed", "update_refused",
    ]  # fmt: skip
    assert status["job"]["measured"]["agreement"] < 0.9
    assert manifest.digest((tmp_path / "bad" / manifest.MANIFEST).read_bytes()) not in digests
    assert manifest.digest((tmp_path / "good" / manifest.MANIFEST).read_bytes()) in digests
    assert len(answered) > 40
    assert {name: p["restarts"] for name, p in restarts.items()} == dict.fromkeys(restarts, 0)
