"""How long one live record takes from its durable append to its acknowledgement, through the embedded broker (amqtt).

The next record comes a random moment after the acknowledgement, up to `PAUSE_S`: that is when a small packet still waits for
its TCP acknowledgement, and Nagle's algorithm with the other side's delayed acknowledgement would hold the next one for
40 ms. Two uplinks take turns, one as it is, one that leaves TCP_NODELAY off: it shows whether the cluster can be seen here
at all.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.enums import MQTTProtocolVersion

from edge_runtime import datagrams
from edge_runtime.errors import GudgeonError
from edge_runtime.link.uplink import Uplink
from edge_runtime.outbox.store import Outbox
from edge_runtime.wire.topics import Place
from tools.bench.figures import percentiles_us
from tools.bench.outbox import BODY
from tools.bench.servers import Servers

PAUSE_S = 0.030
CLUSTER_MS = (35.0, 55.0)
BINS_MS = (0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 80, 100, 200, 1000)
ACK_S = 10.0
WARM = 10
TURN = 25


class Nagled(Uplink):
    """As paho opens its socket: Nagle's algorithm on."""

    def _make_client(self, protocol: MQTTProtocolVersion) -> mqtt.Client:
        client = super()._make_client(protocol)
        client.on_socket_open = None
        return client


class Watched(Outbox):
    """Tells when an acknowledgement has deleted a record."""

    def ack(self, committed: Mapping[str, int]) -> int:
        deleted = super().ack(committed)
        self.acked_ns, self.acked_seq = time.perf_counter_ns(), committed.get("decision", 0)
        with self.changed:
            self.changed.notify_all()
        return deleted

    changed = threading.Condition()
    acked_ns = acked_seq = 0


class Sender:
    """An uplink in a thread of its own, as `link` runs it."""

    def __init__(self, folder: Path, name: str, port: int, kind: type[Uplink]) -> None:
        folder.mkdir(parents=True)
        self._outbox = Watched(folder / "outbox.db", name, "bench")
        self._outbox.changed = threading.Condition()
        self._wake = datagrams.bound(folder / "link.sock")
        self._poke = datagrams.Sender(folder / "link.sock")
        place = Place("acme", "site1", "area1", "line1", "cell1", name)
        key = Ed25519PrivateKey.generate()
        self._uplink = kind(place, "bench", "127.0.0.1", port, self._outbox, key, self._wake)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._turn, name=name, daemon=True)
        self._thread.start()

    def _turn(self) -> None:
        while not self._stopping.is_set():
            self._uplink.turn()

    def once_ns(self) -> int:
        """Append one record and wait for its acknowledgement."""
        begin_ns = time.perf_counter_ns()
        seq = self._outbox.append("decision", "decision", BODY, durable=True).seq
        self._poke()
        with self._outbox.changed:
            if not self._outbox.changed.wait_for(lambda: self._outbox.acked_seq >= seq, ACK_S):
                raise GudgeonError(f"a record was not acknowledged within {ACK_S:.0f} s")
        return self._outbox.acked_ns - begin_ns

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._uplink.close()
        self._outbox.close()
        self._wake.close()


def run(servers: Servers, folder: Path, count: int) -> dict[str, Any]:
    port, rng = servers.embedded(), random.Random(1)
    senders = {
        "TCP_NODELAY as the uplink sets it": Sender(folder / "nodelay", "bench-nodelay", port, Uplink),
        "TCP_NODELAY off": Sender(folder / "nagle", "bench-nagle", port, Nagled),
    }
    times: dict[str, list[int]] = {name: [] for name in senders}
    for sender in senders.values():
        for _ in range(WARM):
            sender.once_ns()
    while len(next(iter(times.values()))) < count:
        for name, sender in senders.items():
            for _ in range(min(TURN, count)):
                times[name].append(sender.once_ns())
                time.sleep(rng.uniform(0.0, PAUSE_S))
    for sender in senders.values():
        sender.close()
    return {"broker": "embedded (amqtt)", "rows": [_described(name, taken) for name, taken in times.items()]}


def _described(name: str, times_ns: list[int]) -> dict[str, Any]:
    ms = [ns / 1e6 for ns in times_ns]
    inside = sum(CLUSTER_MS[0] <= t <= CLUSTER_MS[1] for t in ms)
    ends = (*BINS_MS[1:], float("inf"))
    bins = {f"{a}": sum(a <= t < b for t in ms) for a, b in zip(BINS_MS, ends, strict=True)}
    return {
        "name": name, "samples": len(ms), "us": percentiles_us(times_ns), "cluster_ms": CLUSTER_MS,
        "in_cluster": round(inside / len(ms), 4), "histogram_ms": {k: n for k, n in bins.items() if n},
    }  # fmt: skip
