"""Modbus RTU over a pair of pseudo-terminals, against a real RTU server."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from edge_runtime.errors import EndpointError
from edge_runtime.field.modbus import ModbusDriver
from edge_runtime.field.modbus_line import ModbusLine, Serial, serial_line
from edge_runtime.field.scan import Bus, Group, Scanner, Unit
from edge_runtime.field.source import ReportQueue
from edge_runtime.field.tag import Quality, Reason, Sample, Tag
from edge_runtime.field.tests.modbus_server import RtuBus, null_modem

TIMEOUT_S = 0.3
FLOW = Tag("flow", "int16", address=0, scale=0.1)
TOTAL = Tag("total", "uint64", address=2, word_order="CDAB")
WAVE = Tag("vibration", "int16", address=100, count=300, rate_hz=1000.0)
CELLS = {0: 65535, 1: 0, 2: 7, 3: 0, 4: 0, 5: 1, **{100 + n: n for n in range(300)}}


@pytest.fixture
def line() -> Iterator[ModbusLine]:
    with null_modem() as (ours, theirs):
        bus = RtuBus(theirs, {1: CELLS, 2: {0: 250}})
        bus.start()
        line = serial_line(Serial(ours, baudrate=115200, parity="N"), TIMEOUT_S)
        yield line
        line.close()
        bus.stop()


def test_values_and_waves_come_over_the_serial_line(line: ModbusLine) -> None:
    driver = ModbusDriver(line=line, unit_id=1)
    driver.connect()
    assert [s.value for s in driver.read([FLOW, TOTAL])] == [pytest.approx(-0.1), 2**48 + 7]
    assert driver.read_wave(WAVE).values == tuple(float(n) for n in range(300))
    driver.write([(FLOW, 12.5)])
    assert driver.read([FLOW])[0].value == 12.5


def test_a_silent_unit_leaves_the_line_open_for_the_others(line: ModbusLine) -> None:
    there, silent = ModbusDriver(line=line, unit_id=2), ModbusDriver(line=line, unit_id=9)
    there.connect()
    for _ in range(2):
        with pytest.raises(EndpointError, match="no answer"):
            silent.connect()
        silent.close()
        assert there.read([FLOW])[0].value == 25.0
    with pytest.raises(EndpointError, match="not connected"):
        silent.read([FLOW])


def test_a_dead_unit_on_the_bus_does_not_stall_the_others(line: ModbusLine) -> None:
    queue = ReportQueue()
    tags = [Tag(f"flow{unit}", "int16", address=0, report_every_s=0.0) for unit in (1, 2, 9)]
    units = [
        Unit(f"unit {n}", ModbusDriver(line=line, unit_id=n), [Group(0.05, (tag,))])
        for n, tag in zip((1, 2, 9), tags, strict=True)
    ]
    scanner = Scanner([Bus(units, queue.put)])
    scanner.start()
    time.sleep(3.0)
    scanner.stop()
    told = [r for r in queue.take() if isinstance(r, Sample)]
    assert {r.reason for r in told if r.tag == "flow9"} == {Reason.NO_ANSWER}
    for tag in ("flow1", "flow2"):
        good_ns = [r.mono_ns for r in told if r.tag == tag and r.quality is Quality.GOOD]
        assert len(good_ns) >= 25
        assert max(b - a for a, b in itertools.pairwise(good_ns)) < 2 * TIMEOUT_S * 1e9 + 0.3e9


def test_a_serial_device_that_is_not_there() -> None:
    with pytest.raises(EndpointError, match="Modbus RTU /dev/nowhere: cannot connect; check the serial device"):
        ModbusDriver(line=serial_line(Serial("/dev/nowhere"), 0.1)).connect()
