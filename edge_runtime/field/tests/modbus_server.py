"""A real Modbus TCP server (pymodbus) in a thread, and a half-dead one that accepts and never answers."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymodbus.datastore import (
    ModbusDeviceContext,
    ModbusSequentialDataBlock,
    ModbusServerContext,
    ModbusSparseDataBlock,
)
from pymodbus.server import ModbusTcpServer


class Plc:
    """Holding registers and coils by zero-based address; `requests`: (function code, address, count) of each."""

    def __init__(self, holding: dict[int, int], coils: dict[int, bool]) -> None:
        self.holding = ModbusSparseDataBlock(dict(holding))
        self.coils = ModbusSparseDataBlock(dict(coils))
        self.requests: list[tuple[int, int, int]] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._server: Any = None

    def start(self, port: int = 0) -> None:
        self.port = port
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)

    def stop(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop).result(10)
            self._thread.join(10)

    def get(self, address: int) -> int:
        """One holding register, asked for over a socket by hand: independent of the driver's library."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as s:
            s.sendall(struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, address, 1))
            reply = b""
            while len(reply) < 11:
                reply += s.recv(64)
        return int(struct.unpack(">H", reply[9:11])[0])

    def _trace(self, sending: bool, pdu: Any) -> Any:
        if not sending:
            count = len(pdu.registers) if pdu.function_code == 16 else pdu.count
            self.requests.append((pdu.function_code, pdu.address, count or 1))
        return pdu

    def _serve(self, started: threading.Event) -> None:
        async def run() -> None:
            empty = ModbusSequentialDataBlock(1, [0] * 10)
            device = ModbusDeviceContext(di=empty, co=self.coils, hr=self.holding, ir=empty)
            context = ModbusServerContext(device, single=True)
            self._server = ModbusTcpServer(context, address=("127.0.0.1", self.port), trace_pdu=self._trace)
            await self._server.serve_forever(background=True)
            self.port = self._server.transport.sockets[0].getsockname()[1]
            started.set()
            await self._server.serving

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(run())


@contextmanager
def silent_server() -> Iterator[int]:
    """Accepts connections and never says a word; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
