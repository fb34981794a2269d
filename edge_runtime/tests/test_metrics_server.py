"""/metrics on the loopback: one page, bounded requests, and a port in use that stops nothing."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from edge_runtime import metrics_server
from edge_runtime.clock import FakeClock
from edge_runtime.exposition import Page, Row
from edge_runtime.metrics_server import AGAIN_S, AT_ONCE, MetricsServer
from edge_runtime.tests.waiting import PATIENCE_S, free_port, until

PAGE = Page((Row("a", "gauge", "A."),), lambda: {"a": {(): 1}})


def answers(port: int) -> bool:
    """Not while all places are taken; they are given back just after the answer."""
    try:
        return get(port)[0] == 200
    except OSError:
        return False


def get(port: int, path: str = "/metrics", method: str = "GET", host: str = "localhost") -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Watch:
    """In the place of the timer that ends a slow request: it strikes when it is told to."""

    set: list[Watch]

    def __init__(self, seconds: float, end: Callable[..., None], args: list[Any]) -> None:
        self._end, self._args = end, args

    def strike(self) -> None:
        self._end(*self._args)

    def start(self) -> None:
        self.set.append(self)

    def cancel(self) -> None:
        self.set.remove(self)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsServer]:
    monkeypatch.setattr(threading, "Timer", Watch)
    monkeypatch.setattr(metrics_server._Handler, "timeout", PATIENCE_S)
    Watch.set = []
    made = MetricsServer("127.0.0.1", [free_port()], PAGE, FakeClock())
    assert made.try_start() == ""
    yield made
    made.stop()


def test_one_page_for_get(server: MetricsServer) -> None:
    status, text = get(server.port, host="127.0.0.1:9464")
    assert (status, text) == (200, "# HELP a A.\n# TYPE a gauge\na 1.0\n")
    assert get(server.port, "/metrics?name=a")[0] == 200


@pytest.mark.parametrize(
    ("path", "method", "host", "status"),
    [
        ("/", "GET", "localhost", 404),
        ("/metrics/x", "GET", "localhost", 404),
        ("/metrics", "POST", "localhost", 501),
        ("/metrics", "GET", "evil.example", 421),
        ("/metrics", "GET", "127.0.0.1.evil.example:80", 421),
        ("/metrics", "GET", "[::1]:9464", 200),
        ("/" + 70_000 * "x", "GET", "localhost", 414),
    ],
)
def test_anything_else_is_refused(server: MetricsServer, path: str, method: str, host: str, status: int) -> None:
    assert get(server.port, path, method, host)[0] == status


def test_slow_clients_are_cut_off_and_never_many(server: MetricsServer) -> None:
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(AT_ONCE)]
    for sock in slow:
        sock.sendall(b"GET /met")
    until(lambda: len(Watch.set) == AT_ONCE)
    with pytest.raises(OSError):
        get(server.port)
    for watch in list(Watch.set):
        watch.strike()
    for sock in slow:
        sock.settimeout(PATIENCE_S)
        assert sock.recv(100) == b""
        sock.close()
    until(lambda: not Watch.set)
    until(lambda: answers(server.port))


def test_a_port_in_use_is_told_and_tried_again_later() -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    clock = FakeClock()
    port = taken.getsockname()[1]
    server = MetricsServer("127.0.0.1", [port], PAGE, clock)
    assert "Address already in use" in server.try_start()
    assert server.port == 0
    assert server.try_again() == ""  # not yet
    taken.close()
    clock.advance(AGAIN_S)
    assert server.try_again() == ""
    assert server.port == port
    server.stop()


def test_the_first_port_that_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1], free_port()]
        server = MetricsServer("127.0.0.1", ports, PAGE, FakeClock())
        assert (server.try_start(), server.port) == ("", ports[1])
        server.stop()


def test_no_port_serves_nothing() -> None:
    server = MetricsServer("127.0.0.1", (), PAGE, FakeClock())
    assert (server.try_start(), server.try_again(), server.port) == ("", "", 0)


def test_two_devices_on_one_machine(tmp_path: Path) -> None:
    """The real process `link`, twice, with the same port: the second tells it and goes on."""
    port, started = free_port(), []
    try:
        for name in ("first", "second"):
            folder = tmp_path / name
            folder.mkdir()
            config = folder / "device.toml"
            config.write_text(
                f'[device]\nid = "{name}"\nstate_dir = "state"\n'
                f"[metrics]\nport = {port}\n[broker]\nport = {free_port()}\n"
            )
            command = [sys.executable, "-m", "edge_runtime.link.process", "--config", str(config)]
            started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ))
            until(partial(told, folder / "state"))
        status, text = get(port)
        assert status == 200
        assert 'gudgeon_device_info{chain="' in text
        assert 'device="first"' in text
        assert events(tmp_path / "first" / "state") == []
        assert events(tmp_path / "second" / "state") == ["metrics_not_served"]
        assert all(process.poll() is None for process in started)
        for process in started:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(PATIENCE_S) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
            process.wait()


def told(state_dir: Path) -> bool:
    log = state_dir / "log" / "link.log"
    return log.exists() and "metrics are" in log.read_text()


def events(state_dir: Path) -> list[str]:
    with sqlite3.connect(state_dir / "outbox.db") as db:
        rows = db.execute("SELECT data FROM event_link").fetchall()
    return ["metrics_not_served" for (data,) in rows if b'"metrics_not_served"' in data]
