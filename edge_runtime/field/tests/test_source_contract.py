"""The contract of a Source, run over every sensor protocol against real servers. A new one adds a row to `BENCHES`.

Values come scaled; a bad point stops no other; a silent endpoint makes its tags BAD and never raises; when it is back, every tag
that was good gets a Gap before its first good value; `stop` ends it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_runtime.clock import SystemClock
from edge_runtime.field.memory import MemoryDriver
from edge_runtime.field.modbus import ModbusDriver
from edge_runtime.field.scan import Bus, Scanner, Unit
from edge_runtime.field.sections import EndpointSection, TagSection
from edge_runtime.field.source import ReportQueue, Source
from edge_runtime.field.sources import groups, make_sources
from edge_runtime.field.tag import Gap, Quality, Reason, Report, Sample, Tag
from edge_runtime.field.tests.modbus_server import Plc, RtuBus, null_modem
from edge_runtime.tests.mqtt_broker import BrokerProcess

PATIENCE_S = 25.0


@dataclass
class Bench:
    """A source with the tags `flow` (scale 2) and `nowhere` (not there). `set` the raw value of flow; cut and restore the way."""

    make: Callable[[ReportQueue], Source]
    set: Callable[[int], None]
    cut: Callable[[], None]
    restore: Callable[[], None]


def sources(
    queue: ReportQueue, folder: Path, endpoint: EndpointSection, where: dict[str, Any], bad: dict[str, Any]
) -> Source:
    more: dict[str, Any] = {"scale": 2.0, "period_s": 0.05, "report_every_s": 0.2}
    tags = [
        TagSection("flow", endpoint.name, **where, **more),
        TagSection("nowhere", endpoint.name, **{**where, **bad}, **more),
    ]
    (source,) = make_sources([endpoint], tags, queue.put, folder, "dev-1")
    return source


def memory_bench(folder: Path) -> Iterator[Bench]:
    driver = MemoryDriver({"flow": 1})
    tags = [TagSection(n, "memory", scale=2.0, period_s=0.05, report_every_s=0.2) for n in ("flow", "nowhere")]

    def power(on: bool) -> None:
        driver.alive = on

    yield Bench(
        lambda queue: Scanner([Bus([Unit("memory", driver, groups(tags))], queue.put, SystemClock())]),
        lambda value: driver.values.update(flow=value),
        lambda: power(False),
        lambda: power(True),
    )


def modbus_bench(folder: Path) -> Iterator[Bench]:
    plcs = [Plc({0: 1, 3: 9}, {0: False})]
    plcs[0].start()
    values = {0: 1, 3: 9}

    def put(value: int) -> None:
        values[0] = value
        other = ModbusDriver("127.0.0.1", plcs[0].port)
        other.connect()
        other.write([(Tag("flow", "uint16"), value)])
        other.close()

    def on() -> None:
        plcs.append(Plc(values, {0: False}))
        plcs[-1].start(plcs[0].port)

    endpoint = EndpointSection(name="plc", port=plcs[0].port, timeout_ms=300)
    where = {"type": "uint16", "address": 0}
    yield Bench(lambda q: sources(q, folder, endpoint, where, {"address": 2}), put, lambda: plcs[-1].stop(), on)
    plcs[-1].stop()


def rtu_bench(folder: Path) -> Iterator[Bench]:
    with null_modem() as (ours, theirs):
        buses = [RtuBus(theirs, {7: {0: 1}})]
        buses[0].start()

        def on() -> None:
            buses.append(RtuBus(theirs, buses[0].units))
            buses[-1].start()

        endpoint = EndpointSection(
            name="bus", protocol="modbus-rtu", serial=ours, unit_id=7, baudrate=115200, parity="N", timeout_ms=300
        )
        where = {"type": "uint16", "address": 0}
        yield Bench(
            lambda q: sources(q, folder, endpoint, where, {"address": 20}),
            lambda value: buses[0].units[7].update({0: value}),
            lambda: buses[-1].stop(),
            on,
        )
        buses[-1].stop()


def opcua_bench(folder: Path) -> Iterator[Bench]:
    pytest.importorskip("asyncua")
    from edge_runtime.field.tests.opcua_sensors import Sensors

    server = Sensors({"flow": 1.0})
    server.start()
    endpoint = EndpointSection(name="ua", protocol="opcua", port=server.port, publishing_ms=50)
    where = {"type": "float64", "node": "ns=2;s=flow"}
    yield Bench(
        lambda q: sources(q, folder, endpoint, where, {"node": "ns=2;s=nowhere"}),
        lambda value: server.set("flow", float(value)),
        server.stop,
        server.start,
    )
    server.stop()


class Broker:
    """A real broker, and a sensor that publishes the newest value ten times a second."""

    def __init__(self) -> None:
        self.value = 1
        self._server = BrokerProcess()
        self.port = self._server.port
        self._stop = threading.Event()

    def start(self) -> None:
        self._server.start()
        self._stop.clear()
        self._sensor = threading.Thread(target=self._publish, daemon=True)
        self._sensor.start()

    def stop(self) -> None:
        self._stop.set()
        self._sensor.join(5)
        self._server.stop()

    def _publish(self) -> None:
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        while not self._stop.wait(0.1):
            client.publish("pump/1", json.dumps({"flow": self.value}))
        client.disconnect()
        client.loop_stop()


def mqtt_bench(folder: Path) -> Iterator[Bench]:
    pytest.importorskip("amqtt")
    broker = Broker()
    broker.start()
    endpoint = EndpointSection(name="broker", protocol="mqtt", port=broker.port)
    where = {"type": "float64", "topic": "pump/1", "path": "flow"}

    def put(value: int) -> None:
        broker.value = value

    yield Bench(lambda q: sources(q, folder, endpoint, where, {"path": "no.where"}), put, broker.stop, broker.start)
    broker.stop()


BENCHES: dict[str, Callable[[Path], Iterator[Bench]]] = {
    "memory": memory_bench,
    "modbus-tcp": modbus_bench,
    "modbus-rtu": rtu_bench,
    "opcua": opcua_bench,
    "mqtt": mqtt_bench,
}


class Listener:
    def __init__(self, source: Source, queue: ReportQueue) -> None:
        self.source, self._queue = source, queue
        self.told: list[Report] = []

    def until(self, wanted: Callable[[Report], bool]) -> Report:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for report in self.told:
                if wanted(report):
                    return report
            assert time.monotonic() < deadline, (self.told[-20:], self.source.health())
            self.told += self._queue.take(0.1)


@contextmanager
def listening(bench: Bench) -> Iterator[Listener]:
    queue = ReportQueue()
    source = bench.make(queue)
    source.start()
    try:
        yield Listener(source, queue)
    finally:
        source.stop()


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    yield from BENCHES[request.param](tmp_path)


def good(value: float) -> Callable[[Report], bool]:
    return lambda r: isinstance(r, Sample) and (r.tag, r.value, r.quality) == ("flow", value, Quality.GOOD)


def is_bad(tag: str, *reasons: Reason) -> Callable[[Report], bool]:
    return lambda r: isinstance(r, Sample) and r.tag == tag and r.value is None and r.reason in reasons


def test_a_sensor_through_its_life(bench: Bench) -> None:
    with listening(bench) as sensor:
        sensor.until(good(2))
        sensor.until(is_bad("nowhere", Reason.REFUSED, Reason.WRONG_TYPE))
        bench.set(21)
        sensor.until(good(42))
        assert all(h.answers for h in sensor.source.health())

        bench.cut()
        sensor.until(is_bad("flow", Reason.NO_ANSWER))
        assert not any(h.answers for h in sensor.source.health())
        assert all(h.problem for h in sensor.source.health())

        sensor.told.clear()
        bench.restore()
        back = sensor.until(good(42))
        gap = next(r for r in sensor.told if isinstance(r, Gap))
        assert gap.tag == "flow"
        assert sensor.told.index(gap) < sensor.told.index(back)
        assert isinstance(back, Sample)
        assert gap.from_mono_ns < gap.to_mono_ns <= back.mono_ns
        assert not any(isinstance(r, Gap) and r.tag == "nowhere" for r in sensor.told)
    assert threading.active_count() < 60


def test_an_endpoint_that_is_not_there_raises_nothing(bench: Bench) -> None:
    bench.cut()
    with listening(bench) as sensor:
        sensor.until(is_bad("flow", Reason.NO_ANSWER))
        bench.restore()
        sensor.until(good(2))
        assert not any(isinstance(r, Gap) for r in sensor.told)
