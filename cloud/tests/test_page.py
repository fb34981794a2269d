"""The live page in real headless Chromium: what a device publishes over MQTT appears in the page."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloud.main import run
from cloud.settings import BrokerSection, CloudSettings, HttpSection, SimulatorSection, StoreSection
from cloud.tests.browser import browser, missing
from cloud.tests.made import FakeDevice, decision, event

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.timeout(120)]

STATS = {
    "recall": 0.975,
    "overkill": 0.012,
    "escape": 0.025,
    "unanswered": 0,
    "trigger_to_answer_ms": {"p50": 2.3, "p99": 7.9},
}
HOSTILE = "<img src=x onerror=\"document.title='broken'\"> scratch 0.91 > 0.42"


class Stats(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(STATS).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@contextmanager
def cloud(folder: Path, http_port: int = 0) -> Iterator[tuple[int, int]]:
    """A running companion with a simulator's statistics; (http_port, broker_port)."""
    simulator = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stats)
    threading.Thread(target=simulator.serve_forever, daemon=True).start()
    settings = CloudSettings(
        HttpSection(port=http_port),
        BrokerSection(port=0),
        StoreSection(f"sqlite:///{folder / 'c.db'}", key_file=folder / "c.key"),
        simulator=SimulatorSection(f"http://127.0.0.1:{simulator.server_port}/stats"),
    )
    ready, stop = threading.Event(), threading.Event()
    ports: list[tuple[int, int]] = []

    def on_ready(serving: dict[str, int]) -> None:
        ports.append((serving["http_port"], serving["broker_port"]))
        ready.set()

    thread = threading.Thread(target=run, args=(settings, on_ready, stop))
    thread.start()
    try:
        assert ready.wait(20)
        yield ports[0]
    finally:
        stop.set()
        thread.join(10)
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
