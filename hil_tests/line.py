"""A simulated line and a device on it, without cloud: what the tests of isolation and of faults stand on."""

from __future__ import annotations

import json
import sqlite3
import tomllib
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from hil_tests.bench import PATIENCE_S, ready, running
from tools.chaos.pair import free_port
from tools.demo import files
from tools.demo.files import Plan, Workplace
from tools.demo.main import DEFAULT_BUNDLE


class Line:
    """`folder` holds the configuration, the part log and the device's state."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self.folder, self.ports = folder, ports

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['stats_port']}/stats", timeout=PATIENCE_S) as reply:
            content: dict[str, Any] = json.load(reply)
        return content

    def pid(self, process: str) -> int:
        return int(json.loads((self.folder / "state/run/processes.json").read_text())[process]["pid"])

    def parts(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "parts.jsonl").read_text().splitlines()]

    def events(self, stream: str) -> list[dict[str, Any]]:
        """Everything of a stream: there is no cloud, so it is all still in the outbox."""
        outbox = sqlite3.connect(self.folder / "state/outbox.db")
        rows = outbox.execute(f"SELECT data FROM event_{stream} ORDER BY seq").fetchall()
        outbox.close()
        return [json.loads(data) for (data,) in rows]


@contextmanager
def line_with_device(
    folder: Path,
    parts: int,
    parts_per_s: float,
    scenario: str = "",
    broker_port: int = 0,
    more: str = "",
    change: Mapping[str, Mapping[str, Any]] | None = None,
    started_by: Callable[[Path], AbstractContextManager[Any]] | None = None,
) -> Iterator[Line]:
    """The deadlines are wide: what is tested here is what is answered, on a machine that may be busy, and not how fast.

    `broker_port` 0: nobody listens there. `more` goes to the end of device.toml. `change`: section → keys of it that are
    to be otherwise. `started_by`: starts the device with this configuration, in the place of `gudgeon run`."""
    work = Workplace(folder)
    plan = Plan(parts, parts_per_s, DEFAULT_BUNDLE, deadline_ms=100.0, frame_timeout_ms=40.0)
    args: list[str | Path] = [
        "sim",
        "line",
        "--config",
        files.line_toml(work, plan),
        "--ready-file",
        work / "line.ready",
    ]
    args += [
        "--parts",
        str(parts),
        "--parts-per-s",
        str(parts_per_s),
        "--log",
        work / "parts.jsonl",
        "--wait-for-device",
    ]
    if scenario:
        (work / "scenario.toml").write_text(scenario)
        args += ["--scenario", work / "scenario.toml"]
    with running(*args, cwd=folder, log=work / "line.log") as line:
        ports = ready(work / "line.ready", line, work / "line.log")
        config = files.device_toml(work, plan, ports, {"broker_port": broker_port or free_port()})
        if change:
            written = tomllib.loads(config.read_text())
            work.write(
                config.name, written | {name: written.get(name, {}) | dict(keys) for name, keys in change.items()}
            )
        with config.open("a") as file:
            file.write(more)
        device = (
            started_by(config)
            if started_by
            else running("run", "--config", config, cwd=folder, log=work / "device.log")
        )
        with device:
            yield Line(folder, ports)
