"""The live page in real headless Chromium: what a device publishes over MQTT appears in the page."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud.main import run
from cloud.settings import AccessSection, BrokerSection, CloudSettings, HttpSection, SimulatorSection, StoreSection
from cloud.tests.browser import browser, missing
from cloud.tests.made import WAIT_S, FakeDevice, decision, event
from edge_runtime.wire.envelope import Event

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.timeout(180)]

STATS = {
    "recall": 0.975,
    "overkill": 0.012,
    "escape": 0.025,
    "unanswered": 0,
    "trigger_to_answer_ms": {"p50": 2.3, "p99": 7.9},
}
OPEN = AccessSection()
SECOND_NS = 1_000_000_000
HOSTILE = "<img src=x onerror=\"document.title='broken'\"> scratch 0.91 > 0.42"


class Stats(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(STATS).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@contextmanager
def cloud(folder: Path, http_port: int = 0, access: AccessSection = OPEN) -> Iterator[tuple[int, int]]:
    """A running companion with a simulator's statistics; (http_port, broker_port)."""
    simulator = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stats)
    threading.Thread(target=simulator.serve_forever, daemon=True).start()
    settings = CloudSettings(
        HttpSection(port=http_port),
        BrokerSection(port=0),
        StoreSection(f"sqlite:///{folder / 'c.db'}", key_file=folder / "c.key"),
        simulator=SimulatorSection(f"http://127.0.0.1:{simulator.server_port}/stats"),
        access=access,
    )
    ready, stop = threading.Event(), threading.Event()
    ports: list[tuple[int, int]] = []

    def on_ready(serving: dict[str, int]) -> None:
        ports.append((serving["http_port"], serving["broker_port"]))
        ready.set()

    thread = threading.Thread(target=run, args=(settings, on_ready, stop))
    thread.start()
    try:
        assert ready.wait(WAIT_S)
        yield ports[0]
    finally:
        stop.set()
        thread.join(WAIT_S)
        simulator.shutdown()
        simulator.server_close()


def test_the_page_shows_what_the_line_does(tmp_path: Path) -> None:
    with cloud(tmp_path) as (http_port, broker_port), browser() as page:
        page.open(f"http://127.0.0.1:{http_port}/")
        page.wait("document.getElementById('connection').textContent === 'live'")
        assert page.text("parts") == "0"
        assert page.run("return document.getElementById('rejects').textContent") == "none yet"

        device = FakeDevice(broker_port)
        device.send_raw("status", b'{"online": true, "boot_id": "b"}', retain=True)
        metric = event(1, "metric", "control", line_state=6, outbox_depth=17, health="nominal")
        rejected = decision(4, result=2, score=0.912, reason="blowhole 0.912 > 0.500", serial=None, latency_us=31_000)
        device.send([*(decision(n) for n in (1, 2, 3)), rejected, metric])
        page.wait("document.getElementById('rejects').textContent.includes('blowhole')")
        cells = page.run("return [...document.querySelector('#rejects tr').cells].map((c) => c.textContent)")
        assert cells[1:] == ["0:4", "reject", "0.912", "blowhole 0.912 > 0.500", "dev1"]

        page.wait("document.getElementById('parts').textContent === '4'")
        assert page.text("line-state") == "Execute"
        assert page.text("outbox-depth") == "17"
        assert page.text("devices-online") == "1 / 1"
        assert page.text("result-reject") == "1"
        assert [page.text(f"sim-{name}") for name in ("recall", "overkill", "p99")] == ["97.5 %", "1.2 %", "7.9 ms"]
        assert page.run("return document.querySelectorAll('#latency rect').length") == 14
        assert (
            page.run("return document.querySelectorAll('#latency rect.late[height=\"57.333333333333336\"]').length")
            == 1
        )
        assert float(page.text("parts-per-min")) > 0

        device.send([decision(5, result=3, reason=HOSTILE)])
        page.wait("document.getElementById('rejects').rows.length === 2")
        assert page.run("return document.querySelector('#rejects td.reason').textContent") == HOSTILE
        assert page.run("return document.querySelectorAll('#rejects img').length") == 0
        assert page.run("return document.title") == "Gudgeon – live line"
        assert page.console() == []
        device.close()


def test_the_page_says_when_the_cloud_is_gone_and_comes_back(tmp_path: Path) -> None:
    with browser() as page:
        with cloud(tmp_path) as (http_port, _):
            page.open(f"http://127.0.0.1:{http_port}/")
            page.wait("document.getElementById('connection').dataset.state === 'good'")
        page.wait("document.getElementById('connection').textContent.startsWith('no connection')")
        with cloud(tmp_path, http_port):
            page.wait("document.getElementById('connection').dataset.state === 'good'")


def test_the_page_of_assets_shows_score_life_alarms_and_drift(tmp_path: Path) -> None:
    with cloud(tmp_path) as (http_port, broker_port), browser() as page:
        page.open(f"http://127.0.0.1:{http_port}/assets")
        page.wait("document.getElementById('connection').textContent === 'live'")
        assert page.text("assets") == "none yet"
        device = FakeDevice(broker_port)
        now_ns = time.time_ns()
        told = [asset_event(n, now_ns - (60 - n) * 20 * SECOND_NS, n) for n in range(1, 61)]
        drifted: dict[str, Any] = {
            "asset": "pump-1",
            "model": "anomaly",
            "drifting": True,
            "count": 1,
            "samples": 200,
            "rate": 0.01,
        }
        drifted["columns"] = [{"column": "mean(vib_rms)", "psi": 0.41, "ks": 0.2, "p": 1e-9}]
        drift = event(1, "health", "drift", **drifted)._replace(wall_ns=now_ns, wall_uncertainty_ns=1)
        alarms = [
            alarm_event(1, now_ns, "anomaly", "high", HOSTILE),
            alarm_event(2, now_ns, "remaining", "medium", "31 h left"),
        ]
        device.send([*told, drift, *alarms])
        page.wait("document.querySelectorAll('#alarms tr td.reason').length === 2")
        cells = page.run("return [...document.querySelector('#assets tr').cells].map((c) => c.textContent)")
        assert cells[:7] == ["pump-1", "dev1", "high", "3 / 1.5", "40 h (30 to 55)", "1 columns", "12.5"]
        page.wait("document.querySelectorAll('#score .trace').length >= 1")
        page.wait("document.querySelectorAll('#life .band').length >= 1")
        assert page.run("return document.querySelectorAll('#score .limit').length") == 1
        assert "vib_rms" in page.text("shares")
        assert "PSI 0.41" in page.text("drift")
        row = page.run("return [...document.querySelector('#alarms tr').cells].map((c) => c.textContent)")
        assert (row[0], row[1], row[2], row[4]) == ("high", "unacknowledged", "dev1: pump-1/anomaly", HOSTILE)
        assert page.run("return document.querySelectorAll('#alarms img').length") == 0
        if folder := os.environ.get("GUDGEON_SCREENSHOTS"):
            (Path(folder) / "assets.png").write_bytes(page.screenshot())
        assert page.console() == []
        device.close()


def asset_event(seq: int, wall_ns: int, n: int) -> Event:
    left = 100.0 - n
    body: dict[str, Any] = {
        "asset": "pump-1", "operating_h": 12.5,
        "anomaly": {
            "score": 0.5 + n * 2.5 / 60, "threshold": 1.5, "anomalous": n > 24, "quality": "good", "reason": "",
            "shares": [["vib_rms", 0.7], ["bearing_temp", 0.2], ["flow", 0.1]],
        },
        "remaining": {"remaining": left, "smoothed": left, "lower": left - 10, "upper": left + 15, "unit": "h"},
    }  # fmt: skip
    return event(seq, "telemetry", "asset.pump-1", **body)._replace(wall_ns=wall_ns, wall_uncertainty_ns=1)


def alarm_event(seq: int, wall_ns: int, source: str, severity: str, reason: str) -> Event:
    body: dict[str, Any] = {
        "change": seq, "alarm": f"pump-1/{source}", "asset": "pump-1", "source": source, "state": "unacknowledged",
        "active": True, "severity": severity, "reason": reason, "raised_wall_ns": wall_ns, "shares": [["vib_rms", 0.7]],
    }  # fmt: skip
    return event(seq, "alarm", "raised", **body)._replace(wall_ns=wall_ns, wall_uncertainty_ns=1)
