"""The updater as a process, against a real cloud on this machine: killed at random, and measured over a full update."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from random import Random

import pytest
import tomli_w

from edge_runtime.errors import GudgeonError
from edge_runtime.update import slots
from edge_runtime.update.wake import SOCKET_PATH, wake
from edge_runtime.wire.update_status import UpdateState
from hil_tests.bench import wait_for
from tools.kills import update as kills
from tools.kills.update import DEVICE, CloudHere

pytestmark = pytest.mark.slow
ARTIFACT_BYTES = 40 * 1024 * 1024
RSS_LIMIT_MIB = 60


@pytest.mark.timeout(300)
def test_kills(tmp_path: Path) -> None:
    result = kills.run(tmp_path / "run", kills=12, every_s=0.6, seed=5)
    assert (result.wrong, result.ends, result.unfinished) == ([], [], 0)
    assert result.kills == 12
    assert result.confirmed >= 2


def high_water_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.timeout(300)
def test_memory_over_two_full_updates(tmp_path: Path) -> None:
    """Download of 40 MiB, unpacked, checked, tried, confirmed; then another one of the same kind, which may come as a delta."""
    cloud, state_dir, config = CloudHere(tmp_path / "cloud"), tmp_path / "state", tmp_path / "device.toml"
    update = {"url": f"https://localhost:{cloud.port}", "poll_s": 2.0}
    config.write_text(tomli_w.dumps({"device": {"id": DEVICE, "state_dir": str(state_dir)}, "update": update}))
    cloud.enrol(state_dir)
    noise = Random(1).randbytes(ARTIFACT_BYTES // 2).hex()
    command = [sys.executable, "-m", "tools.kills.updating", "--config", str(config)]
    with (tmp_path / "update.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for("its first question", (state_dir / "run" / "update.json").exists, 60.0)
            for number in (1, 2):
                sha256 = cloud.publish(number, f"good {number} {noise}")
                wake(state_dir / SOCKET_PATH)
                wait_for(f"release {number}", partial(confirmed, state_dir, sha256), 120.0)
                wait_for("the end of its rollout", partial(over, cloud, number, state_dir), 60.0)
            assert process.poll() is None
            peak_mib = high_water_mib(process.pid)
        finally:
            process.terminate()
            process.wait(60)
            cloud.stop()
    print(f"peak memory of the updater: {peak_mib:.1f} MiB")
    assert peak_mib <= RSS_LIMIT_MIB


def confirmed(state_dir: Path, sha256: str) -> bool:
    try:
        record = slots.read(state_dir)
    except GudgeonError:
        return False
    return record.state is UpdateState.CONFIRMED and record.confirmed is not None and record.confirmed.sha256 == sha256


def over(cloud: CloudHere, number: int, state_dir: Path) -> bool:
    wake(state_dir / SOCKET_PATH)
    time.sleep(0.2)
    return cloud.is_over(number)
