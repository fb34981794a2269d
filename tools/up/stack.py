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

import tomli_w

from cloud.sockets import listen, port_of
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
    ) -> None:
        self.folder, self._workers, self._postgres, self._told, self._options = folder, workers, postgres, told, options
        self._asked_port = broker_port
        self.broker_port = 0
        self._http_port = http_port
        self.http_port = 0
        self.keeper = Keeper(folder / "log")
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
        (self.folder / "mosquitto.conf").write_text(mosquitto_conf(self.broker_port))
        self.keeper.add("broker", [program, "-c", str(self.folder / "mosquitto.conf")]).start()
        settings = {
            "http": {"port": self._http_port},
            "broker": {"embedded": False, "port": self.broker_port},
            "store": store,
            "ingest": {"here": self._workers == 0},
        }
        self.config().write_text(tomli_w.dumps(settings))
        self.http_port = int(self._start_one("cloud", "cloud")["http_port"])
        for name in self.worker_names:
            self._start_one(name, "ingest")

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
