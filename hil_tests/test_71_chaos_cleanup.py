"""What a run of `gudgeon chaos` leaves behind: nothing, also when it is interrupted or killed; and its plain refusals."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hil_tests.bench import GUDGEON, gudgeon, one_line, wait_for
from tools.chaos.disk import why_not
from tools.chaos.pair import mosquitto

ROOT = not why_not()


def left(pid: int) -> list[str]:
    """Namespaces, mounts, folders and processes that carry the id of a run."""
    mark = f"gudgeon-chaos-{pid}-"
    found = [str(p) for p in Path("/run/netns").glob(f"{mark}*")] + [str(p) for p in Path("/tmp").glob(f"{mark}*")]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if mark in line]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found += [text] if mark in text else []
    return found


def hears_interrupts() -> None:
    """Who runs the tests in the background of a shell has SIGINT ignored, and so would the run."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def begun(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A run with all that can be left behind, in the middle of it."""
    command = [*GUDGEON, "chaos", "disk-full" if ROOT else "link-loss", "--seconds", "60", "--json"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    run = subprocess.Popen(command, cwd=folder, preexec_fn=hears_interrupts, **pipes)
    try:
        ledgers = f"gudgeon-chaos-{run.pid}-*/producer.jsonl"
        wait_for("the producer", lambda: run.poll() is not None or list(Path("/tmp").glob(ledgers)))
        assert run.poll() is None, run.communicate()
        yield run
    finally:
        run.kill()
        run.wait()


@pytest.mark.slow
def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    with begun(tmp_path) as run:
        assert left(run.pid)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Traceback" not in errors
    assert left(run.pid) == []


@pytest.mark.slow
def test_what_a_killed_run_leaves_is_cleared_away(tmp_path: Path) -> None:
    with begun(tmp_path) as run:
        run.kill()
        run.communicate()
    wait_for("the end of its processes", lambda: not any("python" in x or "mosquitto" in x for x in left(run.pid)))
    assert left(run.pid)
    done = gudgeon("chaos", "--cleanup", cwd=tmp_path)
    assert done.returncode == 0
    assert left(run.pid) == []


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_without_the_privilege_the_proxy_alone(tmp_path: Path) -> None:
    done = gudgeon("chaos", "packet-loss", "--proxy-only", "--json", "--seconds", "4", cwd=tmp_path, timeout_s=170)
    result = json.loads(done.stdout)
    assert (done.returncode, result["lost"], result["double"]) == (0, 0, 0), done.stderr
    assert result["fault"]["stalled"] > 0
    assert "proxy alone" in result["mode"]


def test_refusals_are_one_line(tmp_path: Path) -> None:
    unknown = gudgeon("chaos", "meteor", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "link-loss" in one_line(unknown.stderr)
    nothing = gudgeon("chaos", cwd=tmp_path)
    assert nothing.returncode == 2
    one_line(nothing.stderr)


def test_the_list_tells_what_is_missing(tmp_path: Path) -> None:
    done = gudgeon("chaos", "--list", cwd=tmp_path)
    assert done.returncode == 0
    assert "clock-jumps" in done.stdout
    if mosquitto() is None:
        assert "mosquitto" in done.stdout
