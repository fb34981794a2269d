"""The way to Modbus units: a TCP connection or a serial bus (RTU). The only file that knows pymodbus' names.

Several units may share a line (a bus, or a gateway), one request at a time, from one thread. A line opens itself again at the
next request; what one unit does not answer closes a TCP connection, so that a late answer cannot be taken for the next one's,
and empties a serial line. Nothing is ever sent twice by itself.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pymodbus.client import ModbusSerialClient, ModbusTcpClient
from pymodbus.exceptions import ModbusException

from edge_runtime.errors import EndpointError

Parity = Literal["N", "E", "O"]
#: exception codes: what a gateway says of a unit that does not answer it; what passes by itself
GATEWAY_CODES, PASSING_CODES = (10, 11), (5, 6)
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Serial:
    """Modbus says 19200 8E1; many devices come with 9600 8N1."""

    device: str
    baudrate: int = 19200
    parity: Parity = "E"
    stopbits: int = 1


class Refusal(Exception):  # noqa: N818 - it is an answer
    """The unit answered with an exception code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exception code {code}")
        self.code = code


class ModbusLine:
    def __init__(self, name: str, client: Any) -> None:
        self.name, self._client = name, client
        self._reads = {
            "holding": client.read_holding_registers,
            "input": client.read_input_registers,
            "coil": client.read_coils,
            "discrete": client.read_discrete_inputs,
        }

    @property
    def is_open(self) -> bool:
        return self._client.socket is not None

    def open(self) -> None:
        if self.is_open:
            return
        if not self._client.connect():
            raise EndpointError(f"{self.name}: cannot connect; check {self._hint()} and that the device is on")
        if isinstance(self._client, ModbusTcpClient):
            assert self._client.socket is not None
            self._client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, unit_id: int, space: str, address: int, count: int) -> list[Any]:
        """Registers or bits; Refusal where the unit answers with an exception code or too little."""
        response = self._exchange(lambda: self._reads[space](address, count=count, device_id=unit_id))
        if response.isError():
            raise Refusal(int(getattr(response, "exception_code", 0)))
        block: list[Any] = response.registers if space in ("holding", "input") else response.bits
        if len(block) < count:
            raise Refusal(0)
        return block

    def write_coil(self, unit_id: int, address: int, on: bool) -> None:
        self._written(lambda: self._client.write_coil(address, on, device_id=unit_id))

    def write_registers(self, unit_id: int, address: int, registers: Sequence[int]) -> None:
        self._written(lambda: self._client.write_registers(address, list(registers), device_id=unit_id))

    def close(self) -> None:
        self._client.close()

    def _written(self, call: Any) -> None:
        response = self._exchange(call)
        if response.isError():
            raise Refusal(int(getattr(response, "exception_code", 0)))

    def _exchange(self, call: Any) -> Any:
        self.open()
        try:
            return call()
        except (ModbusException, OSError, ValueError) as error:
            self._after_silence()
            raise EndpointError(f"{self.name}: no answer: {error}") from error

    def _after_silence(self) -> None:
        if isinstance(self._client, ModbusTcpClient) or self._client.socket is None:
            self.close()
            return
        try:
            self._client.socket.reset_input_buffer()
        except Exception:  # a device that was pulled out; pyserial raises termios.error, which is no OSError
            self.close()

    def _hint(self) -> str:
        return "address, port" if isinstance(self._client, ModbusTcpClient) else "the serial device, its permissions"


def tcp_line(host: str, port: int, timeout_s: float) -> ModbusLine:
    return ModbusLine(f"Modbus TCP {host}:{port}", ModbusTcpClient(host, port=port, timeout=timeout_s, retries=0))


def serial_line(serial: Serial, timeout_s: float) -> ModbusLine:
    client = ModbusSerialClient(
        serial.device, timeout=timeout_s, retries=0,
        baudrate=serial.baudrate, parity=serial.parity, stopbits=serial.stopbits,
    )  # fmt: skip
    return ModbusLine(f"Modbus RTU {serial.device}", client)
