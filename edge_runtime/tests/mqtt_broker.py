"""A real MQTT 3.1.1 broker (amqtt) in a process of its own, so that a stop is a cut: the kernel closes every connection."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import time

START_TIMEOUT_S = 30.0


class BrokerProcess:
    """On a free port of the loopback, which stays its own over `stop` and `start`."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: multiprocessing.process.BaseProcess | None = None

    def start(self) -> None:
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=(self.port,), daemon=True)
        self._process.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(self.port):
            assert self._process.is_alive(), "the broker ended"
            assert time.monotonic() < deadline, "the broker does not answer"
            self._process.join(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _serve(port: int) -> None:
    from amqtt.broker import Broker

    settings = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }

    async def serve() -> None:
        await Broker(settings).start()
        await asyncio.Event().wait()

    asyncio.run(serve())
