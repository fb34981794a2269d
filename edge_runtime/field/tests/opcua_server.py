"""A real OPC UA server (asyncua) in a thread, with the handshake's tags as nodes."""

from __future__ import annotations

import asyncio
import socket
import threading

from asyncua import Server, ua

NAMESPACE = "urn:gudgeon:plc"


class OpcPlc:
    """`values`: node name → (OPC UA type name, value). The port is a free one, and the same after a restart."""

    def __init__(self, values: dict[str, tuple[str, int | bool]]) -> None:
        self._values = values
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def start(self) -> None:
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(started),), daemon=True)
        self._thread.start()
        assert started.wait(120)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(20)

    async def _serve(self, started: threading.Event) -> None:
        server = Server()
        await server.init()
        server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        index = await server.register_namespace(NAMESPACE)
        for name, (kind, value) in self._values.items():
            variant = ua.Variant(value, ua.VariantType[kind])
            node = await server.nodes.objects.add_variable(ua.NodeId(name, index), name, variant)
            await node.set_writable()
        async with server:
            started.set()
            await self._stop.wait()
