"""A real device and a real cloud, wired as a scenario asks: link, outbox and producer here, broker and `gudgeon cloud` there.

- `Wiring` says what the scenario needs; `Pair` makes it, and `wait` is the only way to let time pass: it looks after the
  processes and tells the screen.
- Broker: Mosquitto where it is installed, else the cloud's embedded one. Network: two namespaces where this user may make
  them, else this machine's loopback, always through the fault proxy.
"""

from __future__ import annotations

import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from edge_runtime.errors import GudgeonError
from tools.chaos import cloud_rows, ledger
from tools.chaos.certificates import Authority
from tools.chaos.disk import SmallDisk
from tools.chaos.namespaces import CLOUD_IP, Namespaces
from tools.chaos.processes import Keeper
from tools.chaos.proxy import ProxyControl
from tools.chaos.shim import Shim

DEVICE = "chaos-01"
LOOPBACK = "127.0.0.1"
KEEPALIVE_S = 5
STATE_DISK_BYTES = 12 * 2**20
CERTIFICATE_LIFE_S = 3600.0
START_S = 30.0
CHECK_S = 0.05
#: user → group that Mosquitto would change to as root, to whom the run's folder is not open
MOSQUITTO_USER = "root"
_held: list[socket.socket] = []


def mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True)
class Wiring:
    """`proxy`: the device reaches the broker through the fault proxy even where there are namespaces. `per_s`: durable
    records a second, each followed by `bulk` records that are not."""

    proxy: bool = False
    tls: bool = False
    shim: bool = False
    small_disk: bool = False
    per_s: float = 20.0
    bulk: int = 4
    padding_bytes: int = 64


class Pair:
    """`with Pair(…) as pair:` starts everything; leaving stops and removes everything."""

    def __init__(self, folder: Path, wiring: Wiring, namespaces: bool, told: Callable[[str], None]) -> None:
        self.folder, self.wiring, self._told = folder, wiring, told
        self.namespaces = Namespaces() if namespaces else None
        self.embedded = mosquitto() is None
        self.uses_proxy = wiring.proxy or self.namespaces is None or self.embedded
        self.state_dir, self.database = folder / "state", folder / "cloud.db"
        self.ledger_path = folder / "producer.jsonl"
        self.keeper = Keeper(folder / "log")
        self._stack = ExitStack()
        self._ports = {"broker": 1883, "proxy": 1884} if namespaces else {n: free_port() for n in ("broker", "proxy")}

    def __enter__(self) -> Pair:
        try:
            self._prepare()
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ── making it ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _prepare(self) -> None:
        self.state_dir.mkdir(parents=True)
        if self.wiring.small_disk:
            self.disk = SmallDisk(self.folder / "disk.img", self.state_dir, STATE_DISK_BYTES)
            self._stack.callback(self.disk.unmount)
            self.disk.mount()
        if self.namespaces:
            self._stack.callback(self.namespaces.remove)
            self.namespaces.create()
        if self.wiring.shim:
            self.shim = Shim(self.folder)
            self._stack.callback(self.shim.close)
        if self.wiring.tls:
            self.authority = Authority(self.folder / "tls")
            self.issue(CERTIFICATE_LIFE_S)

    def issue(self, life_s: float) -> None:
        self.authority.issue([LOOPBACK, CLOUD_IP], life_s)

    def _start(self) -> None:
        self._stack.callback(self.keeper.stop)
        if not self.embedded:
            self.keeper.add("broker", self.at("cloud", mosquitto() or "", "-c", self._mosquitto_conf())).start()
            self.wait_for("the broker", lambda: self.keeper["broker"].says("running"))
        self._start_cloud()
        if self.uses_proxy:
            self._start_proxy()
        config, shim = str(self._device_toml()), self.shim.environment if self.wiring.shim else {}
        link = ("-m", "edge_runtime.link.process", "--config", config)
        self.keeper.add("link", self.at("device", sys.executable, *link), shim).start()
        w = self.wiring
        rates = ("--per-s", f"{w.per_s:g}", "--bulk", str(w.bulk), "--padding-bytes", str(w.padding_bytes))
        producer = ("-m", "tools.chaos.producer", "--config", config, "--ledger", str(self.ledger_path), *rates)
        self.keeper.add("producer", self.at("device", sys.executable, *producer), shim).start()

    def _start_cloud(self) -> None:
        ready = self.folder / "cloud.ready"
        cloud = ("-m", "edge_runtime.cli", "cloud", "--config", str(self._cloud_toml()), "--ready-file", str(ready))
        self.keeper.add("cloud", self.at("cloud", sys.executable, *cloud)).start()
        self.wait_for("the cloud", ready.exists)

    def _start_proxy(self) -> None:
        control = self.folder / "proxy.sock"
        listen = f"{self._face}:{self._ports['proxy']}"
        to = f"{LOOPBACK}:{self._ports['broker']}"
        proxy = ("-m", "tools.chaos.proxy", "--listen", listen, "--to", to, "--control", str(control))
        self.keeper.add("proxy", self.at("cloud", sys.executable, *proxy)).start()
        self.wait_for("the proxy", control.exists)
        self.proxy = ProxyControl(control)
        self._stack.callback(self.proxy.close)

    @property
    def _face(self) -> str:
        """The address that the device sees."""
        return CLOUD_IP if self.namespaces else LOOPBACK

    def at(self, side: str, *command: str) -> list[str]:
        """`command` as it is run on that side."""
        return [*(self.namespaces.inside(side) if self.namespaces else []), *command]

    @property
    def device_broker(self) -> tuple[str, str]:
        """Host and port of the broker as the device knows it."""
        return self._face, str(self._ports["proxy" if self.uses_proxy else "broker"])

    def _mosquitto_conf(self) -> str:
        """Two listeners where there is TLS: plain for the cloud on its own machine, TLS for the device."""
        port = self._ports["broker"]
        lines = [f"user {MOSQUITTO_USER}", "allow_anonymous true", "per_listener_settings false"]
        lines += [f"listener {port} {LOOPBACK}"] if not self.wiring.tls else [f"listener {self._plain_port} {LOOPBACK}"]
        if self.wiring.tls:
            lines += [f"listener {port} {LOOPBACK if self.uses_proxy else CLOUD_IP}"]
            lines += [f"certfile {self.authority.certificate}", f"keyfile {self.authority.key}"]
        elif not self.uses_proxy:
            lines += [f"listener {port} {CLOUD_IP}"]
        path = self.folder / "mosquitto.conf"
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    @property
    def _plain_port(self) -> int:
        if "plain" not in self._ports:
            self._ports["plain"] = 1885 if self.namespaces else free_port()
        return self._ports["plain"]

    def _cloud_toml(self) -> Path:
        port = self._plain_port if self.wiring.tls else self._ports["broker"]
        data = {
            "http": {"port": 0},
            "broker": {"embedded": self.embedded, "port": port},
            "store": {"url": f"sqlite:///{self.database.name}"},
        }
        return self._write("cloud.toml", data)

    def _device_toml(self) -> Path:
        host, port = self.device_broker
        broker: dict[str, Any] = {"host": host, "port": int(port), "keepalive_s": KEEPALIVE_S}
        if self.wiring.tls:
            broker |= {"tls": True, "ca_file": str(self.authority.ca)}
        data = {"device": {"id": DEVICE, "state_dir": str(self.state_dir)}, "broker": broker}
        return self._write("device.toml", data)

    def _write(self, name: str, data: Mapping[str, Any]) -> Path:
        path = self.folder / name
        path.write_text(tomli_w.dumps(data))
        return path

    # ── letting time pass ───────────────────────────────────────────────────────────────────────────────────────────

    def wait(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Look after the processes for so long, or `until`; True if it came true."""
        deadline_s, told_s = time.monotonic() + seconds, 0.0
        while (now_s := time.monotonic()) < deadline_s:
            self.keeper.tick()
            if until and until():
                return True
            if now_s - told_s > 0.5:
                told_s = now_s
                self._told(f"{self.arrived()} rows in the cloud")
            time.sleep(CHECK_S)
        return bool(until and until())

    def last(self, seconds: float, until: Callable[[], bool]) -> None:
        """At least so long, and on a machine that stands still longer: `until`, or all patience is gone."""
        self.wait(seconds)
        self.wait(START_S, until)

    def wait_for(self, what: str, until: Callable[[], bool], timeout_s: float = START_S) -> None:
        """GudgeonError with the last line of the log if it does not come true."""
        if not self.wait(timeout_s, until):
            names = [n for n in ("broker", "cloud", "proxy", "link", "producer") if n in self.keeper]
            told = "; ".join(f"{name}: {self.keeper[name].last_line()[:200]}" for name in names)
            raise GudgeonError(f"{what}: not ready within {timeout_s:.0f} s; {told}")

    # ── what is known ───────────────────────────────────────────────────────────────────────────────────────────────

    def arrived(self, since_ns: int = 0) -> int:
        """Rows in the cloud that the device made after `since_ns`."""
        there = self.database.exists() and "producer" in self.keeper
        return cloud_rows.count(self.database, DEVICE, since_ns) if there else 0

    def produced(self) -> tuple[list[ledger.Produced], list[str]]:
        text = self.ledger_path.read_text(errors="replace") if self.ledger_path.exists() else ""
        return ledger.read_ledger(text)

    def settled(self, top: Mapping[tuple[str, str], int]) -> bool:
        """The cloud has, or has been told to miss, everything up to here."""
        heads = cloud_rows.heads(self.database, DEVICE)
        return all(heads.get(key, 0) >= seq for key, seq in top.items())

    def kill(self, name: str) -> bool:
        return self.keeper[name].kill()

    def stop_producer(self) -> None:
        self.keeper["producer"].stop()

    def settle(self) -> ledger.Ledger:
        produced, refused = self.produced()
        return ledger.settle(produced, refused, cloud_rows.read_cloud(self.database, DEVICE))


def free_port() -> int:
    """Held until this process ends, so that nobody else is given it; a server that sets SO_REUSEADDR may listen there."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((LOOPBACK, 0))
    _held.append(sock)
    return int(sock.getsockname()[1])
