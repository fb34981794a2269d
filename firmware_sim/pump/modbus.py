"""The sensors as Modbus input registers, over TCP and over a serial device (RTU). The map is `TAGS` and the wave block.

Exception 2 for an address that the map does not have; a unit that is not there says nothing. While the plant is mute nothing is
answered. Registers that no tag uses between two tags read 0.
"""

from __future__ import annotations

import logging
import math
import os
import select
import threading
import tty
from pathlib import Path
from typing import Any

import numpy as np
from pymodbus.constants import ExcCodes
from pymodbus.exceptions import NoSuchIdException
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from firmware_sim.errors import ResourceError
from firmware_sim.pump.plant import Plant
from firmware_sim.pump.tags import TAGS, WAVE_DATA, WAVE_HEAD, WAVE_MG_LIMIT, registers, to_raw

READ_INPUT, READ_HOLDING = 4, 3
LAST_TAG = 28
logging.getLogger("pymodbus").setLevel(logging.CRITICAL + 1)


class Map:
    """The registers now; made anew by `refresh`, so that one request sees one moment."""

    def __init__(self, plant: Plant) -> None:
        self._plant, self._order = plant, plant.config.modbus.word_order
        self._cells: list[int] = [0] * LAST_TAG
        self._wave: list[int] = []
        self._number = -1

    def refresh(self) -> None:
        for tag in TAGS:
            raw = int(to_raw(tag, np.array([self._plant.wire.get(tag.name, math.nan)]))[0])
            words = registers(tag, raw, self._order)
            self._cells[tag.address : tag.address + len(words)] = words
        if self._number != self._plant.wave_number:
            self._number = self._plant.wave_number
            mg = np.clip(np.rint(self._plant.wave * 1000), -WAVE_MG_LIMIT, WAVE_MG_LIMIT).astype(np.int16)
            head = [self._number, round(self._plant.config.pump.wave_rate_hz), len(mg)]
            pad = [0] * (WAVE_DATA - WAVE_HEAD - len(head))
            self._wave = [*head, *pad, *mg.view(np.uint16).tolist()]

    def read(self, address: int, count: int) -> list[int] | None:
        if address + count <= len(self._cells):
            return self._cells[address : address + count]
        at = address - WAVE_HEAD
        return self._wave[at : at + count] if at >= 0 and at + count <= len(self._wave) else None


class _Context:
    """What pymodbus calls for every request, in place of its data store."""

    def __init__(self, plant: Plant, cells: Map) -> None:
        self._plant, self._cells = plant, cells

    def device_ids(self) -> list[int]:
        return [self._plant.config.modbus.unit_id]

    async def async_getValues(self, device_id: int, func_code: int, address: int, count: int = 1) -> Any:  # noqa: N802
        if self._plant.mute or device_id != self._plant.config.modbus.unit_id:
            raise NoSuchIdException  # with ignore_missing_devices: no answer
        found = self._cells.read(address, count) if func_code in (READ_INPUT, READ_HOLDING) else None
        return ExcCodes.ILLEGAL_ADDRESS if found is None else found

    async def async_setValues(self, device_id: int, func_code: int, address: int, values: Any) -> Any:  # noqa: N802
        return ExcCodes.ILLEGAL_ADDRESS


class PumpModbus:
    def __init__(self, plant: Plant) -> None:
        self.map = Map(plant)
        self._context = _Context(plant, self.map)
        self._servers: list[Any] = []
        self._wire: NullModem | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port that was taken."""
        server = ModbusTcpServer(_device(), address=(host, port), ignore_missing_devices=True)
        server.context = self._context
        try:
            await server.serve_forever(background=True)
        except RuntimeError as error:
            raise ResourceError(
                f"modbus: cannot listen on {host}:{port}: the port is in use, or the address is not this machine's; "
                "choose another modbus.port"
            ) from error
        self._servers.append(server)
        return int(server.transport.sockets[0].getsockname()[1])

    async def start_rtu(self, link: Path | None) -> str:
        """Serve RTU on one end of a pair of pseudo-terminals; the name of the other end."""
        self._wire = NullModem(link)
        server = ModbusSerialServer(_device(), port=self._wire.inner, baudrate=115200, ignore_missing_devices=True)
        server.context = self._context
        await server.serve_forever(background=True)
        self._servers.append(server)
        return self._wire.outer

    async def close(self) -> None:
        for server in self._servers:
            await server.shutdown()
        if self._wire is not None:
            self._wire.close()


def _device() -> SimDevice:
    return SimDevice(1, simdata=[SimData(0, values=0, datatype=DataType.REGISTERS)])


class NullModem:
    """Two serial devices joined by a wire: `inner` for the server, `outer` for the client, which `link` also names."""

    def __init__(self, link: Path | None) -> None:
        pairs = [os.openpty() for _ in range(2)]
        self._masters = [master for master, _ in pairs]
        self._slaves = [slave for _, slave in pairs]
        for slave in self._slaves:
            tty.setraw(slave)
        self.inner, self.outer = (os.ttyname(slave) for slave in self._slaves)
        self._link = link
        if link is not None:
            _relink(link, self.outer)
        self._stop = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="null-modem", daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.write(self._stop[1], b"x")
        self._thread.join(2.0)
        for end in (*self._masters, *self._slaves, *self._stop):
            os.close(end)
        if self._link is not None:
            self._link.unlink(missing_ok=True)

    def _carry(self) -> None:
        one, other = self._masters
        beyond = {one: other, other: one}
        while True:
            ready, _, _ = select.select([*beyond, self._stop[0]], [], [])
            if self._stop[0] in ready:
                return
            for end in ready:
                os.write(beyond[end], os.read(end, 4096))


def _relink(link: Path, target: str) -> None:
    if link.exists() and not link.is_symlink():
        raise ResourceError(f"rtu.link {link}: is there and no symbolic link; choose another")
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    except OSError as error:
        raise ResourceError(f"rtu.link {link}: cannot be made: {error.strerror}") from error
