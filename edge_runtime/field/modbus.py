"""Modbus behind the Driver seam, over TCP or a serial bus (edge_runtime/field/modbus_line.py).

Neighbouring tags are read in one request and written in one FC16; the plan of requests for a tuple of tags is made
once. A block that the unit refuses is read tag by tag from then on: one bad point never takes its neighbours with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge_runtime.clock import Clock, SystemClock
from edge_runtime.errors import EndpointError
from edge_runtime.field import judge
from edge_runtime.field.codec import decode, decode_all, encode
from edge_runtime.field.driver import Value
from edge_runtime.field.modbus_line import GATEWAY_CODES, PASSING_CODES, ModbusLine, Refusal, tcp_line
from edge_runtime.field.tag import Quality, Reason, Sample, Tag, Wave

GAP_LIMIT = 8  # unused registers that are worth reading to save a request
COUNT_LIMIT = 120


@dataclass(frozen=True)
class _Request:
    """One read: `picks` are (index of the tag, offset in the block)."""

    space: str
    address: int
    count: int
    picks: tuple[tuple[int, int], ...]


class ModbusDriver:
    """One unit. `line` is given where units share one; then `host`, `port` and `timeout_s` are not used, and closing the
    driver leaves the line open."""

    def __init__(
        self,
        host: str = "",
        port: int = 502,
        unit_id: int = 1,
        timeout_s: float = 0.5,
        clock: Clock | None = None,
        line: ModbusLine | None = None,
    ) -> None:
        self._line = line or tcp_line(host, port, timeout_s)
        self._shared = line is not None
        self.endpoint = f"{self._line.name} unit {unit_id}"
        self._unit_id = unit_id
        self._clock = clock or SystemClock()
        self._connected = False
        self._code = 0  # of the last refusal
        self._plans: dict[tuple[Tag, ...], tuple[_Request, ...]] = {}

    def connect(self) -> None:
        self.close()
        self._plans.clear()
        self._line.open()
        self._connected = True
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
            if block is None and len(request.picks) > 1 and self._code not in PASSING_CODES:
                self._plans[key] = _split(self._plans[key], request, key)
                for index, _ in request.picks:
                    out[index] = self.read(key[index : index + 1])[0]
                continue
            for index, offset in request.picks:
                tag = key[index]
                if block is None:
                    out[index] = judge.bad(tag, Reason.REFUSED, mono_ns, wall_ns)
                else:
                    out[index] = judge.good(tag, decode(tag, block[offset : offset + tag.words]), mono_ns, wall_ns)
        return out

    def read_wave(self, tag: Tag) -> Wave:
        """The `tag.count` values of a block, in as many requests as its size asks for. The first request is made again at the
        end: where it differs, the device has put a new wave in its place, and the block is read once more; then it is
        UNCERTAIN."""
        wave, whole = self._read_wave(tag)
        if not whole:
            wave, whole = self._read_wave(tag)
        return wave if whole else replace(wave, quality=Quality.UNCERTAIN, reason=Reason.JUMP)

    def _read_wave(self, tag: Tag) -> tuple[Wave, bool]:
        mono_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
        registers: list[Any] = []
        for at in range(0, tag.words, COUNT_LIMIT):
            block = self._call(tag.space, tag.address + at, min(COUNT_LIMIT, tag.words - at))
            if block is None:
                return Wave(tag.name, (), tag.rate_hz, Quality.BAD, mono_ns, wall_ns, Reason.REFUSED), True
            registers.extend(block[: min(COUNT_LIMIT, tag.words - at)])
        first = min(COUNT_LIMIT, tag.words)
        again = self._call(tag.space, tag.address, first) if tag.words > COUNT_LIMIT else registers
        whole = again is not None and again[:first] == registers[:first]
        return judge.wave(tag, decode_all(tag, registers), mono_ns, wall_ns), whole

    def write(self, values: Sequence[tuple[Tag, Value]]) -> None:
        if read_only := [tag.name for tag, _ in values if tag.space not in ("holding", "coil")]:
            raise ValueError(f"tag {read_only[0]}: Modbus input registers and discrete inputs cannot be written")
        for tag, address, registers in merge_writes(values):
            self._check_open()
            try:
                if tag.space == "coil":
                    self._line.write_coil(self._unit_id, address, bool(registers[0]))
                else:
                    self._line.write_registers(self._unit_id, address, registers)
            except Refusal as refusal:
                self.close()
                raise EndpointError(
                    f"{self.endpoint}: refused a write at {address}: {refusal}; check the register map"
                ) from refusal
            except EndpointError:
                self._connected = False
                raise

    def close(self) -> None:
        self._connected = False
        if not self._shared:
            self._line.close()

    def _call(self, space: str, address: int, count: int) -> list[Any] | None:
        """Registers or bits; None where the device answers with an exception code."""
        self._check_open()
        try:
            return self._line.read(self._unit_id, space, address, count)
        except Refusal as refusal:
            self._code = refusal.code
            if refusal.code in GATEWAY_CODES:
                self._connected = False
                raise EndpointError(f"{self.endpoint}: no answer; the gateway says {refusal}") from refusal
            return None
        except EndpointError:
            self._connected = False
            raise

    def _check_open(self) -> None:
        if not self._connected:
            raise EndpointError(f"{self.endpoint}: not connected")


def _split(plan: tuple[_Request, ...], refused: _Request, tags: Sequence[Tag]) -> tuple[_Request, ...]:
    """The plan with one request a tag in place of `refused`."""
    single = [_Request(tags[i].space, tags[i].address, tags[i].words, ((i, 0),)) for i, _ in refused.picks]
    at = plan.index(refused)
    return (*plan[:at], *single, *plan[at + 1 :])


def plan_reads(tags: Sequence[Tag]) -> tuple[_Request, ...]:
    """The fewest requests that cover the tags, tags with small gaps between them together."""
    order = sorted(range(len(tags)), key=lambda i: (tags[i].space, tags[i].address))
    requests: list[_Request] = []
    for i in order:
        tag, words = tags[i], tags[i].words
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
        registers = encode(tag, judge.unscaled(tag, value))
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
