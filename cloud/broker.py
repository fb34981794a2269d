"""The embedded MQTT broker (amqtt, MQTT 3.1.1): for one machine and one command. Mosquitto or EMQX is the real one.

- It runs in its own thread with its own loop, so that a slow page never delays a device.
- Anonymous clients are allowed because the address is this machine's only (`settings.check_loopback`).
- It keeps nothing: a device that was not acknowledged by ingest sends again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.session import Session

from cloud.mqtt_hello import HELLO_TIMEOUT_S, MQTT_311, read_hello, refusal
from edge_runtime import log
from edge_runtime.errors import GudgeonError

LISTENER = "default"
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 1.5
PLUGINS = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}


class EmbeddedBroker:
    """Serves on a socket that already listens; `start` returns when it does. `clients` are connected now."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._loop = asyncio.new_event_loop()
        self._stop: asyncio.Event = asyncio.Event()
        self._started = threading.Event()
        self._error: BaseException | None = None
        self.clients = 0
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    def start(self) -> None:
        self._thread.start()
        if not self._started.wait(START_TIMEOUT_S) or self._error:
            raise GudgeonError(f"the embedded broker did not start: {self._error or 'no answer'}")

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(2 * STOP_TIMEOUT_S)

    def _run(self) -> None:
        _quiet()
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:
            self._error = error
        finally:
            self._started.set()
            self._socket.close()
            self._loop.close()

    async def _serve(self) -> None:
        config = BrokerConfig(listeners={LISTENER: ListenerConfig(type=ListenerType.EXTERNAL)}, plugins=PLUGINS)
        broker = CarefulBroker(config, loop=self._loop)
        await broker.start()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                begun = await _begin(reader, writer)
                if begun is not None:
                    await self._serve_client(broker, begun, writer)
            except (OSError, EOFError, asyncio.CancelledError):
                pass  # the client is gone, or the broker is stopping
            except Exception as error:  # whatever one client sends, the others are served
                log.say(logging.WARNING, "an MQTT connection ended with an error", reason=repr(error))
            finally:
                writer.close()

        server = await asyncio.start_server(connected, sock=self._socket)
        self._started.set()
        await self._stop.wait()
        server.close()
        await self._end(broker)

    async def _serve_client(self, broker: Broker, begun: BegunReader, writer: asyncio.StreamWriter) -> None:
        self.clients += 1
        try:
            await broker.external_connected(begun, StreamWriterAdapter(writer), LISTENER)
        finally:
            self.clients -= 1

    async def _end(self, broker: Broker) -> None:
        try:
            await asyncio.wait_for(broker.shutdown(), STOP_TIMEOUT_S)
        except Exception as error:
            logging.getLogger("gudgeon").warning("the embedded broker did not stop cleanly: %r", error)
        left = [t for t in asyncio.all_tasks(self._loop) if t is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class CarefulBroker(Broker):  # type: ignore[misc]
    """amqtt 0.12.1 gives each client that connects the retained messages of everybody's subscriptions; here a client gets
    what it has subscribed to itself."""

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        if any(subscriber is session for subscriber, _ in self._subscriptions.get(subscription[0], ())):
            await super()._publish_retained_messages_for_subscription(subscription, session)


class BegunReader(StreamReaderAdapter):  # type: ignore[misc]
    """A reader of which the first bytes have been read already."""

    def __init__(self, begun: bytes, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._begun = begun

    async def read(self, n: int = -1) -> bytes:
        if not self._begun:
            return bytes(await super().read(n))
        taken, self._begun = (self._begun, b"") if n == -1 else (self._begun[:n], self._begun[n:])
        return taken if n == -1 or len(taken) == n else taken + bytes(await super().read(n - len(taken)))


async def _begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> BegunReader | None:
    """A reader for the broker, or None where the client was refused."""
    try:
        begun, level = await asyncio.wait_for(read_hello(reader), HELLO_TIMEOUT_S)
    except (ValueError, TimeoutError) as error:
        log.say(logging.WARNING, "a connection to the broker was closed", reason=str(error) or "no CONNECT came")
        return None
    if level == MQTT_311:
        return BegunReader(begun, reader)
    writer.write(refusal(level))
    await writer.drain()
    return None


def _quiet() -> None:
    """amqtt tells every connection and every message; what matters is told here and in ingest."""
    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
