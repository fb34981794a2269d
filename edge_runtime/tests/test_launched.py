"""The launcher with real processes: it ends what hangs, what is left running and what is not confirmed, and tells systemd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_runtime import launched
from edge_runtime.launched import children
from edge_runtime.launcher import BASE
from edge_runtime.tests.launch_place import A, B, Place, on_trial, program
from edge_runtime.tests.waiting import PATIENCE_S, until


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


SAY = """
import os, signal, socket, sys, time
to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(text):
    try: to.sendto(text, os.environ["NOTIFY_SOCKET"])
    except OSError: pass
"""
LIVE = SAY + "say(b'READY=1')\nwhile True: time.sleep(0.05); say(b'WATCHDOG=1')\n"
STUBBORN = """
import os
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open({path!r}, "w").write(str(os.getpid()))
    while True: time.sleep(1)
"""


@contextmanager
def launching(place: Place, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "edge_runtime.launcher", "--config", str(place.config), "--base", str(place.base)]
    with (place.folder / "launch.log").open("ab") as log:
        process = subprocess.Popen([*command, *args], stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def runs(place: Place, sha256: str) -> bool:
    return place.told.get("state") == "runs" and place.told["runtime"] == sha256


@pytest.mark.parametrize(
    ("script", "limits", "told"),
    [
        ("raise ImportError('broken')", ("--trial-s", "30"), "ended with exit code 1"),
        ("import time; time.sleep(1000)", ("--ready-s", "5"), "not ready within"),
        (SAY + "say(b'READY=1'); time.sleep(1000)", ("--silent-s", "3", "--trial-s", "30"), "nothing was heard of it"),
    ],
    ids=["crashes", "never ready", "hangs"],
)
def test_a_bad_release_gives_way_to_the_old_one(script: str, limits: tuple[str, ...], told: str, place: Place) -> None:
    place.environment(A, LIVE), place.environment(B, script)
    place.write(on_trial(B, 1, A))
    with launching(place, *limits) as process:
        until(lambda: runs(place, A))
        assert process.poll() is None
    assert process.returncode == 0
    assert told in place.told["given_up"][B]


def test_what_a_runtime_leaves_behind_is_ended_before_the_next_one(place: Place) -> None:
    left = place.folder / "left.pid"
    place.environment(
        B, SAY + STUBBORN.format(path=str(left)) + f"while not os.path.exists({str(left)!r}): time.sleep(0.01)\n"
    )
    place.environment(A, LIVE)
    place.write(on_trial(B, 1, A))
    with launching(place, "--stop-s", "1"):
        pid = int(until(lambda: left.exists() and left.read_text()))
        until(lambda: runs(place, A))
        assert not Path(f"/proc/{pid}").exists()


def test_a_killed_launcher_leaves_no_second_runtime(place: Place) -> None:
    """The first runtime goes on for a while after SIGTERM; the second launcher waits until it is gone."""
    log = place.folder / "log"
    note = f"open({str(log)!r}, 'a').write"
    slow = (
        SAY
        + f"""
def end(*_):
    time.sleep(1); {note}('end\\n'); sys.exit(0)
signal.signal(signal.SIGTERM, end)
{note}('begin\\n')
"""
        + LIVE.removeprefix(SAY)
    )
    program(place.base, slow)
    with launching(place) as first:
        until(lambda: runs(place, BASE))
        first.kill()
        first.wait()
        (place.state_dir / "run/launcher.json").unlink()
        with launching(place):
            until(lambda: runs(place, BASE))
    assert log.read_text() == "begin\nend\n" * 2
    assert "still runs" in (place.folder / "launch.log").read_text()


def test_it_tells_systemd(place: Place) -> None:
    import socket

    address = place.folder / "systemd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(address))
        ear.settimeout(PATIENCE_S)
        program(place.base, LIVE)
        os.environ["NOTIFY_SOCKET"] = str(address)
        try:
            with launching(place):
                heard = b""
                while b"READY=1" not in heard:
                    heard = ear.recv(4096)
                assert b"STATUS=runs the base runtime" in heard
                while b"WATCHDOG=1" not in heard:
                    heard = ear.recv(4096)
        finally:
            del os.environ["NOTIFY_SOCKET"]


def test_children_are_seen_until_they_are_reaped() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)"])
    assert child.pid in children()
    child.send_signal(signal.SIGKILL)
    until(lambda: child.pid not in children())
    child.wait()
    assert launched.reap(None) is None
