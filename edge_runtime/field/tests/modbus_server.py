"""A real Modbus TCP server (pymodbus) in a thread, and a half-dead one that accepts and never answers."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymodbus.datastore import (
    ModbusDeviceContext,
    ModbusSequentialDataBlock,
    ModbusServerContext,
    ModbusSparseDataBlock,
)
from pymodbus.exceptions import NoSuchIdException
from pymodbus.server import ModbusSerialServer, ModbusTcpServer


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


class _SilentForOthers(ModbusServerContext):
    """A unit that is not on the bus says nothing (pymodbus would answer for it)."""

    async def async_getValues(self, device_id: int, func_code: int, address: int, count: int = 1) -> Any:  # noqa: N802
        if device_id not in self.device_ids():
            raise NoSuchIdException
        return await super().async_getValues(device_id, func_code, address, count)


class RtuBus:
    """A real RTU server (pymodbus) on a serial device, with the holding registers of some units; others are silent."""

    def __init__(self, device: str, units: dict[int, dict[int, int]]) -> None:
        self.units, self._device = units, device
        self._loop = asyncio.new_event_loop()
        self._server: Any = None

    def start(self) -> None:
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)

    def stop(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop).result(10)
            self._thread.join(10)

    def _serve(self, started: threading.Event) -> None:
        async def run() -> None:
            empty = ModbusSequentialDataBlock(1, [0] * 10)
            devices = {
                unit: ModbusDeviceContext(di=empty, co=empty, hr=ModbusSparseDataBlock(dict(cells)), ir=empty)
                for unit, cells in self.units.items()
            }
            context = _SilentForOthers(devices, single=False)
            self._server = ModbusSerialServer(context, port=self._device, baudrate=115200, ignore_missing_devices=True)
            await self._server.serve_forever(background=True)
            started.set()
            await self._server.serving

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(run())


@contextmanager
def null_modem() -> Iterator[tuple[str, str]]:
    """Two serial devices joined by a wire (pseudo-terminals and a thread that carries the bytes)."""
    masters, slaves = zip(*(os.openpty() for _ in range(2)), strict=True)
    for slave in slaves:
        tty.setraw(slave)
    stop_read, stop_write = os.pipe()

    def carry() -> None:
        while True:
            ready, _, _ = select.select([*masters, stop_read], [], [])
            if stop_read in ready:
                return
            for end in ready:
                os.write(masters[1 - masters.index(end)], os.read(end, 4096))

    thread = threading.Thread(target=carry, daemon=True)
    thread.start()
    try:
        yield os.ttyname(slaves[0]), os.ttyname(slaves[1])
    finally:
        os.write(stop_write, b"x")
        thread.join(5)
        for end in (*masters, *slaves, stop_read, stop_write):
            os.close(end)
