"""The proxy against a plain echo server: each fault does what it says, and bytes are never changed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from tools.chaos.proxy import Faults, Proxy

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def through(work: Callable[[Proxy, Callable[[], Awaitable[Ends]]], Awaitable[None]]) -> None:
    """Run `work` with a proxy before an echo server, and a way to connect."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        proxy = Proxy(server.sockets[0].getsockname()[:2], random.Random(1))
        front = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
        host, port = front.sockets[0].getsockname()[:2]
        await work(proxy, lambda: asyncio.open_connection(host, port))
        front.close()
        server.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_bytes_pass_unchanged() -> None:
    async def work(proxy: Proxy, connect: Callable[[], Awaitable[Ends]]) -> None:
        reader, writer = await connect()
        sent = random.Random(2).randbytes(50_000)
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        assert proxy.counts["bytes_up"] == proxy.counts["bytes_down"] == len(sent)
        writer.close()

    through(work)


def test_latency_is_in_each_direction() -> None:
    async def work(proxy: Proxy, connect: Callable[[], Awaitable[Ends]]) -> None:
        proxy.faults = Faults(latency_s=0.1)
        reader, writer = await connect()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        writer.write(b"x")
        await reader.readexactly(1)
        assert loop.time() - began_s >= 0.2
        assert proxy.counts["delayed"] == 2
        writer.close()

    through(work)


def test_a_held_direction_delivers_when_it_is_free_again() -> None:
    async def work(proxy: Proxy, connect: Callable[[], Awaitable[Ends]]) -> None:
        reader, writer = await connect()
        proxy.faults = Faults(hold="down")
        writer.write(b"abc")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        assert proxy.counts["held_down"] == 1
        proxy.faults = Faults()
        assert await reader.readexactly(3) == b"abc"
        writer.close()

    through(work)


def test_refused_connections_end_at_once() -> None:
    async def work(proxy: Proxy, connect: Callable[[], Awaitable[Ends]]) -> None:
        proxy.faults = Faults(refuse=True)
        reader, _ = await connect()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        assert proxy.counts["refused"] == 1

    through(work)


def test_a_kick_comes_after_the_connack_only() -> None:
    async def work(proxy: Proxy, connect: Callable[[], Awaitable[Ends]]) -> None:
        proxy.faults = Faults(kick_after_s=0.01)
        reader, writer = await connect()
        writer.write(b"\x20\x02\x00\x00")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(5)
        assert proxy.counts["kicked"] == 1
        other_reader, other = await connect()
        other.write(b"\x30")
        assert await other_reader.readexactly(1) == b"\x30"
        assert proxy.counts["kicked"] == 1
        other.close()

    through(work)


def test_half_open_leaves_the_device_in_its_belief() -> None:
    async def work(proxy: Proxy, connect: Callable[[], Awaitable[Ends]]) -> None:
        reader, writer = await connect()
        writer.write(b"a")
        await reader.readexactly(1)
        proxy.faults = Faults(half_open=True)
        proxy.cut_far_side()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.3)
        proxy.faults = Faults()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()

    through(work)
