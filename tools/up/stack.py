"""A whole cloud in one folder: PostgreSQL, Mosquitto, ingest workers, `gudgeon cloud`. For `gudgeon up`, benchmarks and tests.

`with Stack(…) as stack:` starts everything in order and leaves when all serve; `tick` looks after the processes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from cloud.devices.broker_files import CONF, BrokerFiles
from cloud.devices.side import make_authority, make_desk
from cloud.settings import load_cloud
from cloud.sockets import listen, port_of
from cloud.store.opening import open_store
from cloud.store.postgres_server import PostgresServer
from edge_runtime.errors import MissingExtraError, ResourceError
from tools.chaos.pair import LOOPBACK, free_port, mosquitto
from tools.chaos.processes import Keeper

DATABASE = "gudgeon"
START_S = 60.0
CHECK_S = 0.05


def mosquitto_conf(port: int) -> str:
    """For this machine alone. What a dead worker had under way waits for the others."""
    lines = (f"listener {port} {LOOPBACK}", "allow_anonymous true", "set_tcp_nodelay true", "user root")
    return "\n".join((*lines, "max_inflight_messages 200", "max_queued_messages 100000", "log_type error")) + "\n"


class Devices(NamedTuple):
    """Listen for devices with certificates, at these ports and under these names; 0: any free one."""

    https_port: int
    broker_port: int
    names: tuple[str, ...] = ("localhost", LOOPBACK)
    host: str = LOOPBACK


#: releases, where `gudgeon repo init` made it in the folder of the stack
REGISTRY = "registry"


class Stack:
    """Port 0: any free one. `postgres` False: SQLite, for comparison. `workers` 0: ingest within `gudgeon cloud`."""

    def __init__(
        self,
        folder: Path,
        workers: int,
        http_port: int = 0,
        broker_port: int = 0,
        postgres: bool = True,
        options: tuple[str, ...] = (),
        told: Callable[[str], None] = lambda _: None,
        devices: Devices | None = None,
    ) -> None:
        self.folder, self._workers, self._postgres, self._told, self._options = folder, workers, postgres, told, options
        self._asked_port = broker_port
        self.broker_port = 0
        self._http_port = http_port
        self.http_port = 0
        self.keeper = Keeper(folder / "log")
        self.devices, self.devices_port = devices, 0
        self.server: PostgresServer | None = None
        self._stack = ExitStack()

    @property
    def worker_names(self) -> list[str]:
        return [f"ingest-{n}" for n in range(1, self._workers + 1)]

    def __enter__(self) -> Stack:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def tick(self) -> None:
        """Start again what has died; ResourceError where PostgreSQL has."""
        self.keeper.tick()
        if self.server is not None and not self.server.alive:
            raise ResourceError(f"PostgreSQL has ended; see {self.folder / 'postgres' / 'log'}")

    def config(self) -> Path:
        return self.folder / "cloud.toml"

    def _start(self) -> None:
        program = mosquitto()
        if program is None:
            raise MissingExtraError("Mosquitto is not installed; install it with: apt-get install mosquitto")
        with listen(LOOPBACK, self._asked_port, "--broker-port") as probe:
            self.broker_port = port_of(probe)
        store = self._start_postgres() if self._postgres else {"url": "sqlite:///cloud.db"}
        self._stack.callback(self.keeper.stop)
        settings = {
            "http": {"port": self._http_port},
            "broker": {"embedded": False, "port": self.broker_port},
            "store": store,
            "ingest": {"here": self._workers == 0},
        }
        if (self.folder / REGISTRY).is_dir():
            settings["registry"] = {"folder": REGISTRY}
        conf = self._for_devices(settings, self.devices) if self.devices else self._for_this_machine(settings)
        self.keeper.add("broker", [program, "-c", str(conf)]).start()
        told = self._start_one("cloud", "cloud")
        self.http_port, self.devices_port = int(told["http_port"]), int(told.get("devices_port", 0))
        for name in self.worker_names:
            self._start_one(name, "ingest")

    def _for_this_machine(self, settings: dict[str, Any]) -> Path:
        self.config().write_text(tomli_w.dumps(settings))
        conf = self.folder / "mosquitto.conf"
        conf.write_text(mosquitto_conf(self.broker_port))
        return conf

    def _for_devices(self, settings: dict[str, Any], devices: Devices) -> Path:
        settings["broker"] |= {"username": "cloud", "password_file": "broker-password"}
        self.devices = devices = devices._replace(broker_port=devices.broker_port or free_port())
        settings["devices"] = {
            "serve": True, "host": devices.host, "port": devices.https_port, "names": list(devices.names),
            "broker_folder": "broker", "broker_port": devices.broker_port,
        }  # fmt: skip
        self.config().write_text(tomli_w.dumps(settings))
        loaded = load_cloud(self.config())
        engine = open_store(loaded.store.address)
        try:
            files = BrokerFiles(loaded, make_desk(engine, loaded, make_authority(loaded)))
            files.write()
        finally:
            engine.dispose()
        return files.folder / CONF

    def _start_postgres(self) -> dict[str, str]:
        self._told("PostgreSQL")
        self.server = PostgresServer(self.folder / "postgres", free_port(), self._options)
        self._stack.callback(self.server.stop)
        self.server.start()
        return {"url": self.server.create(DATABASE), "password_file": str(self.server.password_file)}

    def _start_one(self, name: str, command: str) -> dict[str, int]:
        self._told(name)
        ready = self.folder / f"{name}.ready"
        ready.unlink(missing_ok=True)
        words = ("-m", "edge_runtime.cli", command, "--config", str(self.config()), "--ready-file", str(ready))
        kept = self.keeper.add(name, [sys.executable, *words])
        kept.start()
        deadline = time.monotonic() + START_S
        while not ready.exists():
            if not kept.alive or time.monotonic() > deadline:
                raise ResourceError(f"{name} did not start: {kept.last_line()}")
            time.sleep(CHECK_S)
        told: dict[str, int] = json.loads(ready.read_text())
        return told
