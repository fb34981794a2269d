"""Modbus TCP server over the PLC's registers. Requests go straight to the register array, in the event loop of the line.

Exception 2 for an address that the map does not have, for a write to what is the PLC's, and for a wrong unit id. While
the PLC is mute, requests get no answer at all. pymodbus serves the wire; its own data store is not used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from pymodbus.constants import ExcCodes
from pymodbus.exceptions import NoSuchIdException
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from firmware_sim.errors import ResourceError
from firmware_sim.registers import Registers

SPACE_OF = {1: "coil", 3: "holding", 5: "coil", 6: "holding", 15: "coil", 16: "holding", 22: "holding", 23: "holding"}
logging.getLogger("pymodbus").setLevel(logging.CRITICAL + 1)


class _Context:
    """What pymodbus calls for every request, in place of its data store."""

    def __init__(self, registers: Registers, unit_id: int, mute: Callable[[], bool]) -> None:
        self._registers, self._unit_id, self._mute = registers, unit_id, mute

    def device_ids(self) -> list[int]:
        return [self._unit_id]

    async def async_getValues(  # noqa: N802 - pymodbus' name
        self, device_id: int, func_code: int, address: int, count: int = 1
    ) -> list[int] | list[bool] | ExcCodes:
        space = self._space(device_id, func_code)
        cells = self._registers.read(space, address, count) if space else None
        if cells is None:
            return ExcCodes.ILLEGAL_ADDRESS
        return [bool(c) for c in cells] if space == "coil" else cells

    async def async_setValues(  # noqa: N802 - pymodbus' name
        self, device_id: int, func_code: int, address: int, values: Sequence[int | bool]
    ) -> ExcCodes | None:
        space = self._space(device_id, func_code)
        if not space or not self._registers.client_writes(space, address, values):
            return ExcCodes.ILLEGAL_ADDRESS
        return None

    def _space(self, device_id: int, func_code: int) -> str | None:
        if self._mute():
            raise NoSuchIdException  # with ignore_missing_devices: no answer
        return SPACE_OF.get(func_code) if device_id == self._unit_id else None


class ModbusPlc:
    def __init__(self, registers: Registers, unit_id: int, mute: Callable[[], bool] = lambda: False) -> None:
        self._context = _Context(registers, unit_id, mute)
        self._server: ModbusTcpServer | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port that was taken."""
        device = SimDevice(1, simdata=[SimData(0, values=0, datatype=DataType.REGISTERS)])
        self._server = ModbusTcpServer(device, address=(host, port), ignore_missing_devices=True)
        self._server.context = self._context
        try:
            await self._server.serve_forever(background=True)
        except RuntimeError as error:
            raise ResourceError(
                f"modbus: cannot listen on {host}:{port}: the port is in use, or the address is not this machine's; "
                "choose another modbus.port"
            ) from error
        return int(self._server.transport.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            await self._server.shutdown()
