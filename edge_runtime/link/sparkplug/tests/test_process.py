"""The real process `link` in Sparkplug mode: killed in the middle of a flush it loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from edge_runtime.boot import boot_id
from edge_runtime.link.sparkplug.tests.host import Host
from edge_runtime.outbox.store import Outbox
from edge_runtime.tests.mosquitto import MOSQUITTO, mosquitto
from edge_runtime.tests.waiting import PATIENCE_S, until

RECORDS = 3000
KILLS = 3
DEVICE = """
[device]
id = "dev1"
state_dir = "state"
[broker]
port = {port}
[link]
protocol = "sparkplug"
[sparkplug]
primary_host = "scada"
confirm_after_s = 0.2
backlog_records_per_s = {per_s}
batch_records = 25
"""


def start(folder: Path, port: int, per_s: int) -> subprocess.Popen[bytes]:
    (folder / "device.toml").write_text(DEVICE.format(port=port, per_s=per_s))
    command = [sys.executable, "-m", "edge_runtime.link.process", "--config", str(folder / "device.toml")]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=(folder / "link.log").open("ab"))


@pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto: apt-get install mosquitto")
def test_kill_9_in_the_middle_of_a_flush_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    outbox = Outbox(tmp_path / "state" / "outbox.db", "dev1", boot_id())
    sent = {}
    for n in range(RECORDS // 10):
        for event in outbox.append_many([("fault", f"kind{i}", {"n": n}) for i in range(10)], durable=False):
            sent[event.kind, event.seq] = event.wall_ns // 1_000_000
    with mosquitto(tmp_path) as port:
        host = Host(port)
        host.say(True, 1)
        for n in range(KILLS):
            came = len(distinct(host))
            link = start(tmp_path, port, per_s=200)
            host.wait(lambda n=n, came=came: len(host.bd_seqs) > n and len(distinct(host)) > came + 250)
            os.kill(link.pid, signal.SIGKILL)
            link.wait()
            host.wait(lambda n=n: len(host.deaths) == n + 1)
        assert 0 < outbox.depth() < RECORDS, "killed in the middle, with a part of it acknowledged"
        link = start(tmp_path, port, per_s=100_000)
        until(lambda: outbox.depth() == 0)
        link.terminate()
        assert link.wait(PATIENCE_S) == 0, (tmp_path / "link.log").read_text()
        host.wait(lambda: len(host.deaths) == KILLS + 1)
        host.stop()
    assert distinct(host) == sent, "everything, each with its own time"
    assert sorted(set(host.bd_seqs)) == host.deaths == list(range(KILLS + 1))
    assert host.breaches == []
    assert all(p.historical for p in host.points if p.name.startswith("Fault/kind") and p.message != "NBIRTH")
    per_flush = in_order_runs([p.value for p in host.points if p.name.endswith("/seq") and is_ours(p.name, p.message)])
    assert per_flush <= KILLS + 1, "each flush is in order"
    outbox.close()


def test_without_protobuf_the_process_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "device.toml").write_text(DEVICE.format(port=1, per_s=200))
    (tmp_path / "google").mkdir()
    (tmp_path / "google" / "__init__.py").write_text("")  # hides the installed one
    command = [sys.executable, "-m", "edge_runtime.link.process", "--config", str(tmp_path / "device.toml")]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 7
    assert done.stderr.count("\n") == 1
    assert "pip install 'gudgeon[sparkplug]'" in done.stderr


def is_ours(name: str, message: str) -> bool:
    return name.startswith("Fault/kind") and message == "NDATA"


def distinct(host: Host) -> dict[tuple[str, int], int]:
    points = [p for p in host.points if p.name.endswith("/seq") and is_ours(p.name, p.message)]
    return {(p.name.split("/")[1], p.value): p.timestamp for p in points}


def in_order_runs(seqs: list[int]) -> int:
    """How often the row starts again at a lower number, plus one."""
    return 1 + sum(b <= a for a, b in pairwise(seqs))
