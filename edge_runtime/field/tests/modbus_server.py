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

from pymodbus.constants import ExcCodes
from pymodbus.datastore import (
    ModbusDeviceContext,
    ModbusSequentialDataBlock,
    ModbusServerContext,
    ModbusSparseDataBlock,
)
from pymodbus.exceptions import NoSuchIdException
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


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
        assert started.wait(60)

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


class _Units:
    """What pymodbus calls for every request, in place of its data store. A unit that is not on the bus says nothing."""

    def __init__(self, units: dict[int, dict[int, int]]) -> None:
        self._units = units

    def device_ids(self) -> list[int]:
        return list(self._units)

    async def async_getValues(self, device_id: int, func_code: int, address: int, count: int = 1) -> Any:  # noqa: N802
        if device_id not in self._units:
            raise NoSuchIdException
        cells, wanted = self._units[device_id], range(address, address + count)
        there = func_code in (3, 6, 16) and all(a in cells for a in wanted)
        return [cells[a] for a in wanted] if there else ExcCodes.ILLEGAL_ADDRESS

    async def async_setValues(self, device_id: int, func_code: int, address: int, values: list[int]) -> Any:  # noqa: N802
        self._units[device_id].update(enumerate(values, address))


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
        assert started.wait(60)

    def stop(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop).result(10)
            self._thread.join(10)

    def _serve(self, started: threading.Event) -> None:
        async def run() -> None:
            device = SimDevice(1, simdata=[SimData(0, values=0, datatype=DataType.REGISTERS)])
            self._server = ModbusSerialServer(device, port=self._device, baudrate=115200, ignore_missing_devices=True)
            self._server.context = _Units(self.units)
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
