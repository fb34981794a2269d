from __future__ import annotations

import asyncio

import numpy as np

from firmware_sim.camera import HEADER, Camera, encode
from firmware_sim.part import Truth

TRUTH = Truth("free", False)


async def read_frame(reader: asyncio.StreamReader) -> tuple[tuple[object, ...], bytes]:
    header = HEADER.unpack(await reader.readexactly(HEADER.size))
    return header, await reader.readexactly(header[-1])


def test_every_client_gets_every_frame_as_documented() -> None:
    async def scene() -> None:
        camera = Camera()
        port = await camera.start("127.0.0.1", 0)
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        while len(camera.clients) < 2:
            await asyncio.sleep(0)
        grey, colour = np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones((2, 5, 3), np.uint8)
        camera.push(encode(grey, TRUTH), 65535, 123456789)
        camera.push(encode(colour, TRUTH), 1, 2**63)
        for reader, writer in clients:
            header, pixels = await read_frame(reader)
            assert header == (b"GFRM", 1, 36, 65535, 123456789, 4, 3, 1, 12)
            assert pixels == grey.tobytes()
            header, pixels = await read_frame(reader)
            assert header == (b"GFRM", 1, 36, 1, 2**63, 5, 2, 3, 30)
            writer.close()
        camera.close()

    asyncio.run(scene())


def test_a_client_that_does_not_read_is_dropped_and_the_others_are_served() -> None:
    async def scene() -> None:
        camera = Camera()
        port = await camera.start("127.0.0.1", 0)
        _, lazy = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while len(camera.clients) < 2:
            await asyncio.sleep(0)
        big = encode(np.zeros((2000, 2000), np.uint8), TRUTH)
        for n in range(1, 20):
            camera.push(big, n, 0)
            header, _ = await read_frame(reader)
            assert header[3] == n
        assert camera.dropped_clients == 1
        assert len(camera.clients) == 1
        lazy.close()
        writer.close()
        camera.close()

    asyncio.run(scene())
