"""A TCP proxy that fails on command; the network of a scenario where packets themselves cannot be touched.

Started as ``python -m tools.chaos.proxy --listen HOST:PORT --to HOST:PORT --control PATH``. One request a line on the
control socket (JSON: the `Faults` to set, and `"cut": true` to reset every connection now), one line of counts back.

- Bytes are never dropped or changed within a connection: TCP would not do that either. What a black hole or a stall holds
  is delivered when it ends, if the connection still lives.
- `half_open` closes the broker's side and leaves the device in the belief that it is connected.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import random
import socket
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1024
QUEUE_CHUNKS = 256
HELD_CHECK_S = 0.05
TIMEOUT_S = 10.0
CONNACK = 0x20
UP, DOWN = "up", "down"


@dataclass
class Faults:
    """What is wrong now. `stall` and `reset` are chances for each chunk of bytes (a packet that was lost, and one that was
    lost too often); `hold` names the direction ("up": device to broker) in which nothing passes, or "both"."""

    latency_s: float = 0.0
    bytes_per_s: int = 0
    hold: str = ""
    refuse: bool = False
    half_open: bool = False
    kick_after_s: float = 0.0
    stall: float = 0.0
    stall_s: float = 0.4
    reset: float = 0.0


class Proxy:
    def __init__(self, to: tuple[str, int], rng: random.Random) -> None:
        self._to, self._rng = to, rng
        self._writers: set[asyncio.StreamWriter] = set()  # both sides of every connection
        self._far: set[asyncio.StreamWriter] = set()  # the broker's side
        self._tasks: set[asyncio.Task[None]] = set()
        self.faults, self.counts = Faults(), Counter[str]()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from the device."""
        self.counts["connections"] += 1
        if self.faults.refuse:
            self.counts["refused"] += 1
            abort(writer)
            return
        try:
            there, back = await asyncio.open_connection(*self._to)
        except OSError:
            self.counts["no_broker"] += 1
            abort(writer)
            return
        for end in (writer, back):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ends = {writer, back}
        self._writers |= ends
        self._far.add(back)
        await asyncio.wait(
            [asyncio.create_task(self._pump(UP, reader, back)), asyncio.create_task(self._pump(DOWN, there, writer))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        self._far.discard(back)
        while self.faults.half_open and not writer.is_closing():
            await asyncio.sleep(HELD_CHECK_S)
        self._writers -= ends
        for end in ends:
            abort(end)

    async def _pump(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read on one side, wait as long as the line takes, write on the other."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUE_CHUNKS)
        sender = asyncio.create_task(self._send(way, queue, writer))
        loop, first = asyncio.get_running_loop(), True
        try:
            while data := await reader.read(CHUNK_BYTES):
                await queue.put((loop.time() + self.faults.latency_s, data))
                if way == DOWN and first and data[0] == CONNACK and self.faults.kick_after_s:
                    self._keep(self._kick(writer))
                first = False
            await queue.put((0.0, b""))
            await sender
        except OSError:
            pass
        finally:
            sender.cancel()

    async def _send(self, way: str, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, data = await queue.get()
            if not data:
                return
            if (wait_s := due_s - loop.time()) > 0:
                self.counts["delayed"] += 1
                await asyncio.sleep(wait_s)
            await self._held(way)
            if self.faults.stall and self._rng.random() < self.faults.stall:
                self.counts["stalled"] += 1
                await asyncio.sleep(self.faults.stall_s * (1 + self._rng.random()))
            if self.faults.reset and self._rng.random() < self.faults.reset:
                self.counts["reset"] += 1
                abort(writer)
                return
            if self.faults.bytes_per_s:
                self.counts["paced"] += 1
                await asyncio.sleep(len(data) / self.faults.bytes_per_s)
            writer.write(data)
            self.counts[f"bytes_{way}"] += len(data)
            with contextlib.suppress(OSError):
                await writer.drain()

    async def _held(self, way: str) -> None:
        if self.faults.hold in (way, "both"):
            self.counts[f"held_{way}"] += 1
        while self.faults.hold in (way, "both"):
            await asyncio.sleep(HELD_CHECK_S)

    async def _kick(self, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.faults.kick_after_s)
        self.counts["kicked"] += 1
        abort(writer)

    def _keep(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cut_far_side(self) -> None:
        """The broker's side of every connection ends; with `half_open` the device is not told."""
        self.counts["half_opened"] += len(self._far)
        for end in self._far:
            abort(end)

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            asked = json.loads(line)
            if asked.pop("cut", False):
                self.counts["cut"] += len(self._writers) // 2
                for end in list(self._writers):
                    abort(end)
            if asked:
                self.faults = dataclasses.replace(Faults(), **asked)
            if self.faults.half_open:
                self.cut_far_side()
            writer.write(json.dumps(self.counts).encode() + b"\n")
            await writer.drain()
        writer.close()


def abort(writer: asyncio.StreamWriter) -> None:
    """End with a reset: nothing that waits is sent."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def serve(listen: tuple[str, int], to: tuple[str, int], control: Path, seed: int) -> None:
    proxy = Proxy(to, random.Random(seed))
    server = await asyncio.start_server(proxy.accept, *listen)
    await asyncio.start_unix_server(proxy.control, str(control))
    async with server:
        await server.serve_forever()


class ProxyControl:
    """The harness's side: `set` replaces all faults, `counts` tells what happened so far."""

    def __init__(self, path: Path) -> None:
        self._socket = _connected(path)
        self._file = self._socket.makefile("rwb")

    def set(self, **faults: Any) -> None:
        self._ask({**dataclasses.asdict(Faults()), **faults})

    def cut(self) -> None:
        self._ask({"cut": True})

    def counts(self) -> dict[str, int]:
        return self._ask({})

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, int]:
        self._file.write(json.dumps(request).encode() + b"\n")
        self._file.flush()
        answer: dict[str, int] = json.loads(self._file.readline())
        return answer


def _connected(path: Path) -> socket.socket:
    """The proxy binds its control socket a moment before it listens."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT_S)
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > deadline_s:
                raise
            time.sleep(HELD_CHECK_S)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--to", required=True)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(_address(args.listen), _address(args.to), args.control, args.seed))
    return 0


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    sys.exit(main())
