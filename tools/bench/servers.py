"""The processes that `gudgeon bench uplink` measures against: Mosquitto, the trivial receiver, `gudgeon cloud`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from edge_runtime.errors import GudgeonError, ResourceError
from tools.chaos.pair import free_port, mosquitto
from tools.chaos.processes import Keeper

START_S = 30.0


class Servers:
    """Each method starts what it names and returns the broker's port; leaving ends all. Two receivers never share a broker:
    each would get what is meant for the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keeper = Keeper(folder / "log")

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        self._keeper.stop()

    def receiver(self) -> int:
        """Mosquitto and the receiver that only acknowledges."""
        port, ready = self._mosquitto("broker-receiver"), self._folder / "receiver.ready"
        self._start(
            "receiver", ["-m", "tools.bench.receiver", "--port", str(port), "--ready", str(ready)], ready.exists
        )
        return port

    def cloud(self) -> int:
        """Mosquitto and the cloud on SQLite."""
        port = self._mosquitto("broker-cloud")
        self._cloud("cloud", f"embedded = false\nport = {port}")
        return port

    def embedded(self) -> int:
        """The cloud with its own broker."""
        ready = self._cloud("embedded", "embedded = true\nport = 0")
        return int(json.loads(ready.read_text())["broker_port"])

    def cpu_s(self, name: str) -> float:
        """Processor seconds that it has used so far."""
        times = psutil.Process(self._keeper[name].pid).cpu_times()
        return float(times.user + times.system)

    def _cloud(self, name: str, broker: str) -> Path:
        config, ready = self._folder / f"{name}.toml", self._folder / f"{name}.ready"
        config.write_text(f'[http]\nport = 0\n[broker]\n{broker}\n[store]\nurl = "sqlite:///{name}.db"\n')
        arguments = ["-m", "edge_runtime.cli", "cloud", "--config", str(config), "--ready-file", str(ready)]
        self._start(name, arguments, ready.exists)
        self._wait(name, lambda: self._keeper[name].says("ingest connected"))
        return ready

    def _mosquitto(self, name: str) -> int:
        program, port = mosquitto(), free_port()
        if program is None:
            raise ResourceError("bench uplink: Mosquitto is not installed; run: make setup-faults")
        config = self._folder / f"{name}.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nset_tcp_nodelay true\n")
        self._keeper.add(name, [program, "-c", str(config)]).start()
        self._wait(name, lambda: self._keeper[name].says("running"))
        return port

    def _start(self, name: str, arguments: list[str], ready: Callable[[], bool]) -> None:
        self._keeper.add(name, [sys.executable, *arguments]).start()
        self._wait(name, ready)

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + START_S
        while not ready():
            if time.monotonic() > deadline_s or not self._keeper[name].alive:
                raise GudgeonError(f"{name} did not start: {self._keeper[name].last_line()[:300]}")
            time.sleep(0.02)
