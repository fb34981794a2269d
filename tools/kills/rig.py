"""The pair that is killed: producer and `link` on one side, a broker and two ingest workers on the other.

Broker: Mosquitto where it is installed. Else the embedded one, which lives within `gudgeon cloud`: then that process is the
one that is killed, broker and ingest together.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import tomli_w

from edge_runtime.child import end_with_parent
from edge_runtime.errors import GudgeonError
from tools.chaos import cloud_rows, ledger
from tools.chaos.pair import DEVICE, LOOPBACK, MOSQUITTO_USER, free_port, mosquitto
from tools.chaos.processes import Keeper

WORKERS = 2
KEEPALIVE_S = 5


class Victim:
    """A process in its nursery. `deaths` of SIGKILL; `ends`: exit codes that it came to by itself."""

    def __init__(self, program: str, arguments: Sequence[str], log: Path) -> None:
        self.deaths, self.ends = 0, list[int]()
        self._log: IO[bytes] = log.open("ab")
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "tools.kills.nursery", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ},
            preexec_fn=end_with_parent,
            text=True,
        )
        self.pid = int(self._ask("start"))

    def kill(self) -> None:
        code, pid = self._ask("kill").split()
        self.pid = int(pid)
        self._ended(int(code))

    def end(self) -> None:
        """Killed, and not started again before `start`."""
        self._ended(int(self._ask("end")))

    def start(self) -> None:
        self.pid = int(self._ask("start"))

    def _ended(self, code: int) -> None:
        if code == -9:
            self.deaths += 1
        else:
            self.ends.append(code)

    def stop(self) -> None:
        if self._nursery.poll() is None:
            self._ask("stop")
        self._nursery.communicate()
        self._log.close()

    def _ask(self, wish: str) -> str:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(wish + "\n")
        self._nursery.stdin.flush()
        answer = self._nursery.stdout.readline()
        if not answer:
            raise GudgeonError(f"the nursery ended; see {self._log.name}")
        return answer


class Rig:
    """`with Rig(folder) as rig:` starts everything; leaving stops it."""

    def __init__(self, folder: Path, producer: Sequence[str]) -> None:
        self.folder, self._producer = folder, producer
        self.embedded = mosquitto() is None
        self.database, self.ledger_path = folder / "cloud.db", folder / "producer.jsonl"
        self.victims: dict[str, Victim] = {}
        self._keeper = Keeper(folder / "log")
        self._port = free_port()

    def __enter__(self) -> Rig:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for victim in reversed(self.victims.values()):  # the producer first
            victim.stop()
        self._keeper.stop()

    def _start(self) -> None:
        (self.folder / "state").mkdir()
        cloud = ["--config", str(self._cloud_toml())]
        if self.embedded:
            self._add("cloud", "cloud", cloud)
        else:
            conf = self.folder / "mosquitto.conf"
            conf.write_text(f"user {MOSQUITTO_USER}\nallow_anonymous true\nlistener {self._port} {LOOPBACK}\n")
            self._keeper.add("broker", [mosquitto() or "", "-c", str(conf)]).start()
            for i in range(1, WORKERS + 1):
                self._add(f"ingest-{i}", "ingest", cloud)
        device = ["--config", str(self._device_toml())]
        self._add("link", "link", device)
        self._add("producer", "producer", [*device, "--ledger", str(self.ledger_path), *self._producer])

    def _add(self, name: str, program: str, arguments: Sequence[str]) -> None:
        self.victims[name] = Victim(program, arguments, self.folder / "log" / f"{name}.log")

    def _cloud_toml(self) -> Path:
        store, ingest = {"url": f"sqlite:///{self.database.name}"}, {"metrics_port": 0}
        broker = {"embedded": self.embedded, "port": self._port}
        return self._write("cloud.toml", {"http": {"port": 0}, "broker": broker, "store": store, "ingest": ingest})

    def _device_toml(self) -> Path:
        broker = {"host": LOOPBACK, "port": self._port, "keepalive_s": KEEPALIVE_S}
        device = {"id": DEVICE, "state_dir": "state"}
        return self._write("device.toml", {"device": device, "broker": broker, "metrics": {"port": 0}})

    def _write(self, name: str, data: Mapping[str, object]) -> Path:
        path = self.folder / name
        path.write_text(tomli_w.dumps(data))
        return path

    # ── what is known ───────────────────────────────────────────────────────────────────────────────────────────────

    def arrived(self) -> int:
        return cloud_rows.count(self.database, DEVICE) if self.database.exists() else 0

    def produced(self) -> tuple[list[ledger.Produced], list[str]]:
        text = self.ledger_path.read_text(errors="replace") if self.ledger_path.exists() else ""
        return ledger.read_ledger(text)

    def settled(self, top: Mapping[tuple[str, str], int]) -> bool:
        heads = cloud_rows.heads(self.database, DEVICE)
        return all(heads.get(key, 0) >= seq for key, seq in top.items())

    def deaths(self) -> Counter[str]:
        return Counter({name: victim.deaths for name, victim in self.victims.items()})
