"""A real MQTT 3.1.1 broker (amqtt) in a process of its own, so that a stop is a cut: the kernel closes every connection."""

from __future__ import annotations

import asyncio
import multiprocessing

from edge_runtime.tests.waiting import answers, free_port, until


class BrokerProcess:
    """On a free port of the loopback, which stays its own over `stop` and `start`."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: multiprocessing.process.BaseProcess | None = None

    def start(self) -> None:
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(self.port,), daemon=True)
        self._process = process
        process.start()
        until(lambda: answers(self.port) or not process.is_alive())
        assert process.is_alive(), "the broker ended"

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()


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
