"""A simulated line, the device in Sparkplug mode, Mosquitto and an independent host: every answered part reaches the host,
through `kill -9` of `link` and a host that goes away and comes back."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.link.sparkplug.tests.host import Host
from edge_runtime.tests.mosquitto import MOSQUITTO, mosquitto
from hil_tests.bench import wait_for
from hil_tests.line import line_with_device

PARTS = 120


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto: apt-get install mosquitto")
def test_every_answered_part_reaches_the_host(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as port:
        host = Host(port, node="demo-01")
        host.say(True, 1)
        change: dict[str, dict[str, Any]] = {
            "broker": {"port": port},
            "link": {"protocol": "sparkplug"},
            "sparkplug": {"primary_host": "scada", "confirm_after_s": 0.5},
        }
        with line_with_device(tmp_path, PARTS, 10, change=change) as line:
            host.wait(lambda: len(host.values("Decision/part_seq")) > 20)
            assert host.lines_online == {"line1"}
            assert not host.select("Decision/part_seq")[-1].historical
            os.kill(line.pid("link"), signal.SIGKILL)
            host.wait(lambda: len(host.deaths) == 1)
            host.wait(lambda: len(host.values("Decision/part_seq")) > 50)
            host.say(False, 2)
            host.wait(lambda: len(host.deaths) == 2)
            wait_for("the end of the run", lambda: line.stats()["done"], timeout_s=120)
            host.say(True, 3)
            answered = {p["part_seq"] for p in line.parts() if p["answered"]}
            host.wait(lambda: answered <= set(host.values("Decision/part_seq")))
            wait_for("an empty outbox", lambda: not line.events("decision"))
        host.wait(lambda: len(host.deaths) == 3)
        host.stop()
    assert len(answered) > PARTS / 2, "on a busy machine some answers come after the gate"
    assert sorted(set(host.bd_seqs)) == host.deaths == [0, 1, 2]
    assert host.breaches == []
    told = {p["part_seq"]: p["result"] for p in line.parts() if p["answered"]}
    parts, results = host.select("Decision/part_seq"), host.select("Decision/result")
    seen = {(p.value, r.value) for p, r in zip(parts, results, strict=True) if p.value in told}
    assert seen == set(told.items()), "the host saw what the PLC was told"
