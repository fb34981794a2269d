"""The same tags as OPC UA nodes (`ns=<index of urn:gudgeon:plc>;s=<tag>`), over the same registers. asyncua is loaded lazily.

- Reading a node reads the register; writing one writes it, under the rules of firmware_sim/registers.py. The server acts
  on an answer when `result_seq` is written, so result and score come before it.
- Subscribers are told of changes every `NOTIFY_S`; for triggers, poll.
- While the PLC is mute, values are bad (communication error).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from firmware_sim.errors import MissingError, ResourceError
from firmware_sim.registers import TAGS, Registers, Tag

NAMESPACE = "urn:gudgeon:plc"
NOTIFY_S = 0.1
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)


class OpcUaPlc:
    def __init__(self, registers: Registers, mute: Callable[[], bool] = lambda: False) -> None:
        try:
            import asyncua
        except ModuleNotFoundError as error:
            raise MissingError(
                "opcua needs asyncua; install it with: pip install 'gudgeon[sim]', or set opcua.enabled = false"
            ) from error
        self._asyncua, self._ua = asyncua, asyncua.ua
        self._registers, self._mute = registers, mute
        self._server: Any = None
        self._watching: asyncio.Task[None] | None = None
        self._node_ids: dict[str, Any] = {}

    async def start(self, host: str, port: int) -> int:
        """Listen; the port that was taken."""
        with claim(host, port) as taken:
            await self._listen(host, taken)
        return taken

    async def _listen(self, host: str, port: int) -> None:
        server = self._asyncua.Server()
        await server.init()
        server.set_endpoint(f"opc.tcp://{host}:{port}/")
        server.set_server_name("Gudgeon simulated PLC")
        server.set_security_policy([self._ua.SecurityPolicyType.NoSecurity])
        index = await server.register_namespace(NAMESPACE)
        folder = await server.nodes.objects.add_object(index, "PLC")
        for tag in TAGS:
            await self._add(server, folder, index, tag)
        try:
            await server.start()
        except OSError as error:
            raise ResourceError(f"opcua: cannot listen on {host}:{port}: {error.strerror or error}") from error
        self._server = server
        self._watching = asyncio.create_task(self._notify())

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._server is not None:
            await self._server.stop()

    async def _add(self, server: Any, folder: Any, index: int, tag: Tag) -> None:
        ua = self._ua
        node_id = self._node_ids[tag.name] = ua.NodeId(tag.name, index)
        node = await folder.add_variable(node_id, f"{index}:{tag.name}", self._value(tag).Value)
        space = server.iserver.aspace
        if tag.writer != "plc":
            await node.set_writable()
            space.set_attribute_value_setter(node_id, ua.AttributeIds.Value, self._setter(tag))
        space.set_attribute_value_callback(node_id, ua.AttributeIds.Value, lambda n, a: self._read(tag))

    def _value(self, tag: Tag) -> Any:
        ua, value = self._ua, self._registers.get(tag.name)
        if tag.space == "coil":
            return ua.DataValue(ua.Variant(bool(value), ua.VariantType.Boolean))
        return ua.DataValue(ua.Variant(value, ua.VariantType.UInt32 if tag.words == 2 else ua.VariantType.UInt16))

    def _read(self, tag: Tag) -> Any:
        if self._mute():
            return self._ua.DataValue(StatusCode=self._ua.StatusCode(self._ua.StatusCodes.BadCommunicationError))
        if tag.name == "encoder":
            self._registers.before_read()
        return self._value(tag)

    def _setter(self, tag: Tag) -> Callable[[Any, Any, Any], None]:
        expected = self._value(tag).Value.VariantType

        def write(node: Any, attribute: Any, data: Any) -> None:
            ua = self._ua
            if self._mute():
                raise ua.UaStatusCodeError(ua.StatusCodes.BadCommunicationError)
            if data.Value is None or data.Value.VariantType != expected:
                raise ua.UaStatusCodeError(ua.StatusCodes.BadTypeMismatch)
            self._registers.client_writes_tag(tag.name, int(data.Value.Value))

        return write

    async def _notify(self) -> None:
        """Tell the subscribers what has changed."""
        nodes = self._server.iserver.aspace
        before: dict[str, int] = {}
        while True:
            await asyncio.sleep(NOTIFY_S)
            for tag in TAGS:
                callbacks = nodes[self._node_ids[tag.name]].attributes[self._ua.AttributeIds.Value].datachange_callbacks
                value = self._registers.get(tag.name)
                if callbacks and before.get(tag.name) != value:
                    before[tag.name] = value
                    for handle, call in list(callbacks.items()):
                        await call(handle, self._value(tag))


@contextmanager
def claim(host: str, port: int) -> Iterator[int]:
    """A free port, kept from everybody else until asyncua listens, which must know its number long before."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ResourceError(
                f"opcua: cannot listen on {host}:{port}: {error.strerror or error}; choose another opcua.port"
            ) from error
        yield int(probe.getsockname()[1])
