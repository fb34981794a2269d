"""OPC UA behind the Driver seam, for PLCs that give the handshake's tags as nodes. Needs the extra `opcua`.

asyncua runs in an event loop of its own thread; every call waits for it with a time-out. Triggers are polled by read:
notifications come one publishing period late. Values are written as a bare DataValue without timestamps, since strict
servers refuse others, in the order given. Nodes are `ns=<index of NAMESPACE>;s=<tag.node>`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from edge_runtime.clock import Clock, SystemClock
from edge_runtime.errors import EndpointError, MissingExtraError
from edge_runtime.field.driver import Value
from edge_runtime.field.tag import Quality, Sample, Tag

T = TypeVar("T")
NAMESPACE = "urn:gudgeon:plc"
VARIANT_TYPE = {
    "bool": "Boolean",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float",
}


class OpcUaDriver:
    def __init__(self, host: str, port: int, timeout_s: float = 0.5, clock: Clock | None = None) -> None:
        try:
            import asyncua
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                "plc.protocol = \"opcua\" needs asyncua; install it with: pip install 'gudgeon[opcua]'"
            ) from error
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
        self.endpoint = f"OPC UA opc.tcp://{host}:{port}"
        self._ua, self._asyncua = asyncua.ua, asyncua
        self._url, self._timeout_s, self._clock = f"opc.tcp://{host}:{port}", timeout_s, clock or SystemClock()
        self._client: Any = None
        self._nodes: dict[str, Any] = {}
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="opcua", daemon=True).start()

    def connect(self) -> None:
        self.close()
        self._client = self._asyncua.Client(self._url, timeout=max(self._timeout_s, 2.0))
        self._wait(self._client.connect(), 5.0)
        index = self._wait(self._client.get_namespace_index(NAMESPACE))
        self._index = int(index)
        server_state = self._client.nodes.server_state
        self._wait(server_state.read_value())

    def read(self, tags: Sequence[Tag]) -> list[Sample]:
        mono_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
        values = self._wait(
            self._open().uaclient.read_attributes([self._node(t) for t in tags], self._ua.AttributeIds.Value)
        )
        return [
            Sample(t.name, v.Value.Value, Quality.GOOD, mono_ns, wall_ns)
            if v.StatusCode is not None and v.StatusCode.is_good() and v.Value is not None and v.Value.Value is not None
            else Sample(t.name, None, Quality.BAD, mono_ns, wall_ns)
            for t, v in zip(tags, values, strict=True)
        ]

    def write(self, values: Sequence[tuple[Tag, Value]]) -> None:
        client = self._open()
        nodes = [self._node(t) for t, _ in values]
        data = [self._ua.DataValue(self._ua.Variant(v, self._ua.VariantType[VARIANT_TYPE[t.type]])) for t, v in values]
        results = self._wait(client.uaclient.write_attributes(nodes, data, self._ua.AttributeIds.Value))
        for (tag, _), status in zip(values, results, strict=True):
            if not status.is_good():
                self.close()
                raise EndpointError(
                    f"{self.endpoint}: refused to write {tag.node}: {status.name}; check the node's access"
                )

    def close(self) -> None:
        client, self._client, self._nodes = self._client, None, {}
        if client is not None:
            try:
                self._run(client.disconnect(), 1.0)
            except (Exception, concurrent.futures.CancelledError) as error:
                logging.getLogger("gudgeon").debug("%s: while closing: %s", self.endpoint, error)

    def _open(self) -> Any:
        if self._client is None:
            raise EndpointError(f"{self.endpoint}: not connected")
        return self._client

    def _node(self, tag: Tag) -> Any:
        if tag.node not in self._nodes:
            self._nodes[tag.node] = self._ua.NodeId(tag.node, self._index)
        return self._nodes[tag.node]

    def _wait(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """The result; every failure, of many types in this library, is an EndpointError and closes the connection."""
        try:
            return self._run(work, timeout_s or self._timeout_s)
        except (Exception, concurrent.futures.CancelledError) as error:
            self.close()
            text = str(error) or type(error).__name__
            raise EndpointError(
                f"{self.endpoint}: no answer: {text}; check address, port and that the PLC is on"
            ) from error

    def _run(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise
