"""Modbus TCP behind the Driver seam: pymodbus' synchronous client, and the only file that knows its names.

Neighbouring tags are read in one request and written in one FC16; the plan of requests for a tuple of tags is made
once.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from edge_runtime.clock import Clock, SystemClock
from edge_runtime.errors import EndpointError
from edge_runtime.field.codec import decode, encode
from edge_runtime.field.driver import Value
from edge_runtime.field.tag import WORDS, Quality, Sample, Tag

GAP_LIMIT = 8  # unused registers that are worth reading to save a request
COUNT_LIMIT = 120
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class _Request:
    """One read: `picks` are (index of the tag, offset in the block)."""

    space: str
    address: int
    count: int
    picks: tuple[tuple[int, int], ...]


class ModbusDriver:
    def __init__(
        self, host: str, port: int, unit_id: int = 1, timeout_s: float = 0.5, clock: Clock | None = None
    ) -> None:
        self.endpoint = f"Modbus TCP {host}:{port} unit {unit_id}"
        self._client = ModbusTcpClient(host, port=port, timeout=timeout_s, retries=0)
        self._unit_id = unit_id
        self._clock = clock or SystemClock()
        self._plans: dict[tuple[Tag, ...], tuple[_Request, ...]] = {}

    def connect(self) -> None:
        self.close()
        self._plans.clear()
        if not self._client.connect():
            raise EndpointError(f"{self.endpoint}: cannot connect; check address, port and that the PLC is on")
        assert self._client.socket is not None
        self._client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._call("holding", 0, 1)

    def read(self, tags: Sequence[Tag]) -> list[Sample]:
        key = tuple(tags)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = plan_reads(key)
        mono_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
        out: list[Sample] = [None] * len(key)  # type: ignore[list-item]
        for request in plan:
            block = self._call(request.space, request.address, request.count)
            if block is None and len(request.picks) > 1:  # one refused point must not take its neighbours with it
                self._plans[key] = _split(self._plans[key], request, key)
                for index, _ in request.picks:
                    out[index] = self.read(key[index : index + 1])[0]
                continue
            for index, offset in request.picks:
                tag = key[index]
                if block is None:
                    out[index] = Sample(tag.name, None, Quality.BAD, mono_ns, wall_ns)
                else:
                    value = decode(tag, block[offset : offset + WORDS[tag.type]])
                    out[index] = Sample(tag.name, value, Quality.GOOD, mono_ns, wall_ns)
        return out

    def write(self, values: Sequence[tuple[Tag, Value]]) -> None:
        if read_only := [tag.name for tag, _ in values if tag.space not in ("holding", "coil")]:
            raise ValueError(f"tag {read_only[0]}: Modbus input registers and discrete inputs cannot be written")
        for tag, address, registers in merge_writes(values):
            if tag.space == "coil":
                self._checked(lambda c, a=address, r=registers: c.write_coil(a, bool(r[0]), device_id=self._unit_id))
            else:
                self._checked(lambda c, a=address, r=registers: c.write_registers(a, r, device_id=self._unit_id))

    def close(self) -> None:
        self._client.close()

    def _call(self, space: str, address: int, count: int) -> list[Any] | None:
        """Registers or bits; None where the device answers with an exception code."""
        method = {
            "holding": self._client.read_holding_registers,
            "input": self._client.read_input_registers,
            "coil": self._client.read_coils,
            "discrete": self._client.read_discrete_inputs,
        }[space]
        response = self._exchange(lambda: method(address, count=count, device_id=self._unit_id))
        if response.isError():
            return None
        block = response.registers if space in ("holding", "input") else response.bits
        return block if len(block) >= count else None

    def _checked(self, call: Any) -> None:
        response = self._exchange(lambda: call(self._client))
        if response.isError():
            self.close()
            raise EndpointError(f"{self.endpoint}: refused a write: {response}; check the register map")

    def _exchange(self, call: Any) -> Any:
        if self._client.socket is None:
            raise EndpointError(f"{self.endpoint}: not connected")
        try:
            return call()
        except (ModbusException, OSError, ValueError) as error:
            self.close()
            raise EndpointError(f"{self.endpoint}: no answer: {error}") from error


def _split(plan: tuple[_Request, ...], refused: _Request, tags: Sequence[Tag]) -> tuple[_Request, ...]:
    """The plan with one request a tag in place of `refused`."""
    single = [_Request(tags[i].space, tags[i].address, WORDS[tags[i].type], ((i, 0),)) for i, _ in refused.picks]
    at = plan.index(refused)
    return (*plan[:at], *single, *plan[at + 1 :])


def plan_reads(tags: Sequence[Tag]) -> tuple[_Request, ...]:
    """The fewest requests that cover the tags, tags with small gaps between them together."""
    order = sorted(range(len(tags)), key=lambda i: (tags[i].space, tags[i].address))
    requests: list[_Request] = []
    for i in order:
        tag, words = tags[i], WORDS[tags[i].type]
        last = requests[-1] if requests else None
        end = tag.address + words
        if (
            last
            and last.space == tag.space
            and tag.address - (last.address + last.count) <= GAP_LIMIT
            and end - last.address <= COUNT_LIMIT
        ):
            count = max(last.count, end - last.address)
            picks = (*last.picks, (i, tag.address - last.address))
            requests[-1] = _Request(tag.space, last.address, count, picks)
        else:
            requests.append(_Request(tag.space, tag.address, words, ((i, 0),)))
    return tuple(requests)


def merge_writes(values: Sequence[tuple[Tag, Value]]) -> list[tuple[Tag, int, list[int]]]:
    """(first tag, address, registers) of each request; only true neighbours share one, gaps are never written."""
    out: list[tuple[Tag, int, list[int]]] = []
    for tag, value in values:
        registers = encode(tag, value)
        last = out[-1] if out else None
        if (
            last
            and tag.space == last[0].space == "holding"
            and last[1] + len(last[2]) == tag.address
            and len(last[2]) + len(registers) <= COUNT_LIMIT
        ):
            last[2].extend(registers)
        else:
            out.append((tag, tag.address, registers))
    return out
