"""From the command line to the PLC and back: desired state and commands over cloud, broker, link, control and Guard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hil_tests.bench import Registers, gudgeon, ready, running, wait_for
from hil_tests.line import Line, line_with_device

EXECUTE, HELD = 6, 11
HOLD, UNHOLD = 4, 5
POINTS = """
[cloud]
public_key = "{key}"
[commands]
allow = ["packml", "setup"]
[commands.points.packml]
address = 20
low = 1
high = 10
while_running = true
[commands.points.setup]
address = 20
low = 1
high = 10
[commands.points.hidden]
address = 20
low = 1
high = 10
"""


class Cloud:
    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self.folder, self.port = folder, ports["broker_port"]
        self._where = ["--config", "cloud.toml", "--cloud", f"http://127.0.0.1:{ports['http_port']}", "--json"]

    def device(self, *args: str) -> tuple[int, Any]:
        done = gudgeon("device", "demo-01", *args, *self._where, cwd=self.folder)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def command(self, name: str, value: int) -> tuple[int, str, str]:
        code, found = self.device("command", name, f"value={value}", "--expires", "20", "--wait")
        return code, found["ended"], found["reason"]


@contextmanager
def cloud(folder: Path) -> Iterator[Cloud]:
    (folder / "cloud.toml").write_text("[http]\nport = 0\n[broker]\nport = 0\n")
    args = ("cloud", "--config", folder / "cloud.toml", "--ready-file", folder / "cloud.ready")
    with running(*args, cwd=folder, log=folder / "cloud.log") as process:
        yield Cloud(folder, ready(folder / "cloud.ready", process, folder / "cloud.log"))


def answered(line: Line) -> int:
    return int(line.stats()["answered"])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_command_moves_the_line_and_the_guard_keeps_it(tmp_path: Path) -> None:
    with cloud(tmp_path) as it:
        key = it.device("key")[1]["public_key"]
        with line_with_device(tmp_path, 0, 10, broker_port=it.port, more=POINTS.format(key=key)) as line:
            wait_for("some answers", lambda: answered(line) > 3)
            plc = Registers(line.ports["modbus_port"])

            code, twin = it.device("desired", "set", "rate_bytes_per_s=40000", "backlog_share=0.2", "--wait")
            assert code == 0
            assert twin["reported"]["state"] == {"rate_bytes_per_s": 40000, "backlog_share": 0.2}

            assert it.command("packml", HOLD) == (0, "done", "")
            wait_for("the line to hold", lambda: plc.read(0) == [HELD])
            assert it.command("packml", UNHOLD) == (0, "done", "")
            wait_for("the line to go on", lambda: plc.read(0) == [EXECUTE])

            code, ended, reason = it.command("setup", HOLD)
            assert (code, ended) == (1, "refused")
            assert "the line is in state 6" in reason
            assert it.command("packml", 11)[:2] == (1, "refused")
            assert it.command("hidden", HOLD)[:2] == (1, "refused")
            assert plc.read(0) == [EXECUTE]

            before = answered(line)
            wait_for("more answers", lambda: answered(line) > before + 5)
            stats = line.stats()
            assert stats["unanswered"] < stats["answered"] / 2, "a machine that stands still lets triggers pass"
            plc.close()
        told = it.device("commands")[1]
        assert [c["ended"] for c in told] == ["done", "done", "refused", "refused", "refused"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_the_clouds_key_nothing_is_taken(tmp_path: Path) -> None:
    with (
        cloud(tmp_path) as it,
        line_with_device(tmp_path, 0, 10, broker_port=it.port, more=POINTS.format(key="")) as line,
    ):
        wait_for("some answers", lambda: answered(line) > 3)
        code, twin = it.device("desired", "set", "metered=true", "--wait")
        assert code == 1
        assert "no key of a cloud" in twin["reported"]["refused"]["reason"]
