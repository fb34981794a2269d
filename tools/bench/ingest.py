"""`gudgeon bench ingest`: from MQTT to committed and deduplicated rows, against asyncpg's COPY of the same rows.

Signed batches, as `link` sends them, go through a real Mosquitto to real ingest workers; a round ends when the last
acknowledgement is back. SQLite and PostgreSQL (durable, as installed) and one and two workers take turns with the floors:
COPY of the same rows into a bare table, and into one with the indexes of `event`. The figure of each kind is its median.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import paho.mqtt.client as mqtt
import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from edge_runtime.errors import GudgeonError
from edge_runtime.identity import public_text
from edge_runtime.link.sender import packed
from edge_runtime.wire.batch import Checkpoint, Head, decode_ack, encode_batch
from edge_runtime.wire.envelope import Event, genesis, record_hash, record_line
from edge_runtime.wire.topics import Place, subscription
from tools.bench.outbox import BODY
from tools.chaos.pair import LOOPBACK
from tools.up.stack import Stack

DEVICES = 8
BATCH = 200
ROUND_S = 120.0
#: stream of each record of a batch, in turn: what a line sends
STREAMS = ("decision", "telemetry")
START_NS = 1_790_000_000_000_000_000
BARE, INDEXED = "COPY, bare table", "COPY, indexes of event"
KINDS: dict[str, tuple[int, bool]] = {
    "SQLite, 1 worker": (1, False),
    "PostgreSQL, 1 worker": (1, True),
    "PostgreSQL, 2 workers": (2, True),
}


class Load(NamedTuple):
    """One round: (topic, payload) of every batch, the heads that must come back, and the rows as the store holds them."""

    messages: list[tuple[str, bytes]]
    heads: dict[str, dict[str, int]]
    rows: list[tuple[Any, ...]]


def make_load(count: int) -> Load:
    """`count` records of new devices."""
    load = Load([], {}, [])
    per_device = count // DEVICES // BATCH * BATCH
    made = [_device_load(load, f"bench-{secrets.token_hex(4)}", per_device) for _ in range(DEVICES)]
    for together in zip(*made, strict=True):
        load.messages.extend(together)
    return load


def _device_load(load: Load, device: str, count: int) -> list[tuple[str, bytes]]:
    place, key, chain = Place("acme", "s", "a", "l", "c", device), Ed25519PrivateKey.generate(), secrets.token_hex(8)
    heads = {stream: Head(0, genesis(device, chain, stream)) for stream in STREAMS}
    messages, lines = [], []
    for n in range(count):
        stream = STREAMS[n % len(STREAMS)]
        seq, prev = heads[stream].seq + 1, heads[stream].hash
        times = (n * 1_000_000, START_NS + n * 1_000_000, 1_000_000)
        body = BODY | {"part_seq": n % 65535 + 1, "part_epoch": n // 65535}
        line = record_line(Event(device, chain, stream, seq, "bench", stream, *times, prev, body))
        heads[stream] = Head(seq, record_hash(line))
        lines.append(line)
        row = (len(load.rows) + 1, device, chain, stream, seq, "bench", stream, *times, START_NS, line.decode())
        load.rows.append((*row, times[1], "device"))
        if len(lines) == BATCH:
            checkpoint = Checkpoint(device, chain, "bench", n + 1, *times, public_text(key), {}, dict(heads))
            messages.append((place.topic("events"), packed(encode_batch(checkpoint, lines, key.sign))))
            lines = []
    load.heads[device] = {stream: head.seq for stream, head in heads.items()}
    return messages


class Sender:
    """Publishes a load and waits for every acknowledgement."""

    def __init__(self, port: int) -> None:
        self._waits: dict[str, dict[str, int]] = {}
        self._done, self._ready = threading.Event(), threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.max_inflight_messages_set(1000)
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.connect(LOOPBACK, port)
        self._client.loop_start()
        self._client.subscribe(subscription("ack"), qos=0)
        self._ready.wait(10)

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        waits = self._waits.get(message.topic.split("/")[6])
        if waits is None:
            return
        for stream, seq in decode_ack(bytes(message.payload)).committed.items():
            if seq >= waits.get(stream, seq + 1):
                del waits[stream]
        if not any(self._waits.values()):
            self._done.set()

    def send(self, load: Load) -> float:
        """Seconds until everything was acknowledged."""
        self._done.clear()
        self._waits = {device: dict(heads) for device, heads in load.heads.items()}
        begin_s = time.perf_counter()
        for topic, payload in load.messages:
            self._client.publish(topic, payload, qos=1)
        if not self._done.wait(ROUND_S):
            raise GudgeonError(f"not everything was acknowledged in {ROUND_S:.0f} s: {self._waits}")
        return time.perf_counter() - begin_s

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def cpu_s(stack: Stack) -> dict[str, float]:
    """Processor seconds so far of the parties: broker, workers, database."""
    found = {
        "broker": _cpu_s([stack.keeper["broker"].pid]),
        "workers": _cpu_s([stack.keeper[n].pid for n in stack.worker_names]),
    }
    if stack.server is not None:
        server = psutil.Process(stack.server.pid)
        found["database"] = _cpu_s([server.pid, *(child.pid for child in server.children(recursive=True))])
    return found


def _cpu_s(pids: Sequence[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids if psutil.pid_exists(pid)]
    return float(sum(t.user + t.system for t in times))


async def _copy(stack: Stack, load: Load, indexed: bool) -> float:
    assert stack.server is not None
    connection: Any = await asyncpg.connect(stack.server.url("gudgeon"), password=stack.server.password)
    try:
        like = "(LIKE event INCLUDING INDEXES)" if indexed else "(LIKE event)"
        await connection.execute(f"DROP TABLE IF EXISTS floor; CREATE TABLE floor {like}")
        begin_s = time.perf_counter()
        await connection.copy_records_to_table("floor", records=load.rows)
        return time.perf_counter() - begin_s
    finally:
        await connection.close()


def run(folder: Path, count: int, rounds: int, quiet: bool) -> dict[str, Any]:
    rates: dict[str, list[float]] = {name: [] for name in (BARE, INDEXED, *KINDS)}
    used: dict[str, list[dict[str, float]]] = {name: [] for name in KINDS}
    with ExitStack() as running, Progress(disable=quiet) as progress:
        task = progress.add_task("starting", total=rounds * len(rates))
        stacks: dict[str, Stack] = {}
        for name, (workers, postgres) in KINDS.items():
            place = folder / str(len(stacks))
            place.mkdir()
            stacks[name] = running.enter_context(Stack(place, workers, postgres=postgres))
        senders = {name: Sender(stack.broker_port) for name, stack in stacks.items()}
        for sender in senders.values():
            running.callback(sender.close)
            sender.send(make_load(DEVICES * BATCH))  # everything has been used once
        for _ in range(rounds):
            for name in rates:
                progress.update(task, description=name)
                load = make_load(count)
                if name in KINDS:
                    before = cpu_s(stacks[name])
                    took_s = senders[name].send(load)
                    used[name].append({k: v - before[k] for k, v in cpu_s(stacks[name]).items()})
                else:
                    took_s = asyncio.run(_copy(stacks["PostgreSQL, 1 worker"], load, name == INDEXED))
                rates[name].append(len(load.rows) / took_s)
                progress.advance(task)
    per_row = len(load.rows)
    return _result(rates, used, per_row)


def _result(rates: dict[str, list[float]], used: dict[str, list[dict[str, float]]], rows: int) -> dict[str, Any]:
    medians = {name: statistics.median(found) for name, found in rates.items()}
    out = []
    for name, per_s in medians.items():
        row: dict[str, Any] = {"name": name, "rows_per_s": round(per_s)}
        row["ratio"] = {floor: round(per_s / medians[floor], 3) for floor in (BARE, INDEXED)}
        if name in used:
            parties = used[name][0]
            row["cpu_us_per_row"] = {
                p: round(1e6 * statistics.median(u[p] for u in used[name]) / rows, 1) for p in parties
            }
        out.append(row)
    one, two = (medians[f"PostgreSQL, {n}"] for n in ("1 worker", "2 workers"))
    return {
        "bench": "ingest", "rows": rows, "rounds": len(rates[BARE]), "floor": BARE, "two_workers": round(two / one, 3),
        "kinds": out,
    }  # fmt: skip


def show(result: dict[str, Any]) -> None:
    table = Table(title=f"ingest, {result['rows']} rows, median of {result['rounds']} rounds")
    for column in ("", "rows/s", f"÷ {BARE}", f"÷ {INDEXED}", "CPU µs per row"):
        table.add_column(column, justify="right" if column else "left")
    for row in result["kinds"]:
        cpu = ", ".join(f"{party} {us}" for party, us in row.get("cpu_us_per_row", {}).items())
        table.add_row(row["name"], str(row["rows_per_s"]), *(f"{r:.3f}" for r in row["ratio"].values()), cpu)
    console = Console()
    console.print(table)
    console.print(f"two workers: {result['two_workers']} × one")
