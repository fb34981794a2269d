"""The contract of a Driver, run over every implementation. A new one adds a row to `BENCHES`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.config import PlcMap
from edge_runtime.errors import EndpointError
from edge_runtime.field.driver import Driver
from edge_runtime.field.handshake import handshake
from edge_runtime.field.memory import MemoryDriver
from edge_runtime.field.modbus import ModbusDriver
from edge_runtime.field.tag import Quality, Tag
from edge_runtime.field.tests.modbus_server import Plc

TAGS = handshake(PlcMap(recipe=5, lot=6))
LOT = 70_000
NOWHERE = Tag("nowhere", "uint16", "holding", 4000, node="nowhere")


@dataclass
class Bench:
    """A driver at a PLC with line state 6, part 41, recipe 3, lot LOT; `switch_off` and `switch_on` its power."""

    driver: Driver
    switch_off: Callable[[], None]
    switch_on: Callable[[], None]


def memory_bench() -> Iterator[Bench]:
    driver = MemoryDriver({"line_state": 6, "part_seq": 41, "recipe": 3, "lot": LOT}, FakeClock())

    def power(on: bool) -> None:
        driver.alive = on

    yield Bench(driver, lambda: power(False), lambda: power(True))


def modbus_bench() -> Iterator[Bench]:
    holding = {0: 6, 1: 41, 2: 0, 3: 0, 4: 0, 5: 3, 6: LOT >> 16, 7: LOT & 0xFFFF, **dict.fromkeys(range(100, 105), 0)}
    plcs = [Plc(holding, {100: False})]
    plcs[0].start()
    driver = ModbusDriver("127.0.0.1", plcs[0].port, timeout_s=1.0, clock=FakeClock())

    def on() -> None:
        plcs.append(Plc(holding, {100: False}))
        plcs[-1].start(plcs[0].port)

    yield Bench(driver, plcs[0].stop, on)
    driver.close()
    plcs[-1].stop()


def opcua_bench() -> Iterator[Bench]:
    pytest.importorskip("asyncua")
    from edge_runtime.field.opcua import OpcUaDriver
    from edge_runtime.field.tests.opcua_server import OpcPlc

    values: dict[str, tuple[str, int | bool]] = {
        **{name: ("UInt16", value) for name, value in (("line_state", 6), ("part_seq", 41), ("recipe", 3))},
        **{tag.node: ("UInt16", 0) for tag in (TAGS.result_seq, TAGS.result, TAGS.score, TAGS.heartbeat)},
        "lot": ("UInt32", LOT),
        "reject_coil": ("Boolean", False),
    }
    plc = OpcPlc(values)
    plc.start()
    driver = OpcUaDriver("127.0.0.1", plc.port, timeout_s=2.0, clock=FakeClock())
    yield Bench(driver, plc.stop, plc.start)
    driver.close()
    plc.stop()


BENCHES: dict[str, Callable[[], Iterator[Bench]]] = {
    "memory": memory_bench,
    "modbus": modbus_bench,
    "opcua": opcua_bench,
}


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    yield from BENCHES[request.param]()


def test_reads_come_in_the_order_asked_for(bench: Bench) -> None:
    bench.driver.connect()
    samples = bench.driver.read(TAGS.inputs)
    assert [(s.tag, s.value) for s in samples] == [("line_state", 6), ("part_seq", 41), ("recipe", 3), ("lot", LOT)]
    assert all(s.quality is Quality.GOOD for s in samples)
    clock = FakeClock()
    assert {(s.mono_ns, s.wall_ns) for s in samples} == {(clock.monotonic_ns(), clock.wall_ns())}
    assert [s.value for s in bench.driver.read(TAGS.inputs[::-1])] == [LOT, 3, 41, 6]
    assert bench.driver.read([]) == []


def test_what_is_written_is_read_back(bench: Bench) -> None:
    bench.driver.connect()
    bench.driver.write([(TAGS.result_seq, 41), (TAGS.result, 2), (TAGS.score, 987)])
    bench.driver.write([(TAGS.reject_coil, True), (TAGS.heartbeat, 65535)])
    tags = (*TAGS.results, TAGS.reject_coil, TAGS.heartbeat)
    assert [s.value for s in bench.driver.read(tags)] == [41, 2, 987, True, 65535]


def test_a_point_that_is_not_there_is_bad_and_the_others_are_read(bench: Bench) -> None:
    bench.driver.connect()
    for _ in range(2):
        there, not_there, also_there = bench.driver.read([TAGS.part_seq, NOWHERE, TAGS.recipe or TAGS.part_seq])
        assert (not_there.value, not_there.quality) == (None, Quality.BAD)
        assert (there.value, also_there.value) == (41, 3)


def test_before_connect_and_after_close_nothing_works(bench: Bench) -> None:
    for _ in range(2):
        with pytest.raises(EndpointError):
            bench.driver.read(TAGS.inputs)
        with pytest.raises(EndpointError):
            bench.driver.write([(TAGS.score, 1)])
        bench.driver.connect()
        bench.driver.close()
        bench.driver.close()


def test_a_dead_plc_is_an_endpoint_error_and_it_may_come_back(bench: Bench) -> None:
    bench.driver.connect()
    bench.switch_off()
    with pytest.raises(EndpointError) as caught:
        bench.driver.read(TAGS.inputs)
    assert "\n" not in str(caught.value)
    with pytest.raises(EndpointError):
        bench.driver.connect()
    with pytest.raises(EndpointError):
        bench.driver.write([(TAGS.score, 1)])
    bench.switch_on()
    bench.driver.connect()
    assert bench.driver.read([TAGS.part_seq])[0].value == 41
