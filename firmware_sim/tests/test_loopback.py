"""The real servers on loopback: a Modbus client answers parts, an OPC UA client sees the same tags, /stats and the log agree."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import AsyncModbusTcpClient

from firmware_sim.camera import HEADER
from firmware_sim.config import (
    CameraSection,
    Config,
    LineSection,
    ModbusSection,
    OpcUaSection,
    SourceSection,
    StatsSection,
)
from firmware_sim.runner import Plant
from firmware_sim.tests.folders import write_folder

Scene = Callable[[Plant, dict[str, int]], Awaitable[None]]


def play(tmp_path: Path, line: LineSection, scene: Scene, opcua: bool = False, scenario: Path | None = None) -> None:
    async def stage() -> None:
        config = Config(
            line=line,
            source=SourceSection(kind="folder", images=write_folder(tmp_path / "images")),
            modbus=ModbusSection(port=0, unit_id=3),
            opcua=OpcUaSection(enabled=opcua, port=0),
            camera=CameraSection(port=0),
            stats=StatsSection(port=0),
            log=tmp_path / "parts.jsonl",
            scenario=scenario,
        )
        plant = Plant(config)
        ports = await plant.start()
        running = asyncio.create_task(plant.run())
        try:
            async with asyncio.timeout(120):
                await scene(plant, ports)
        finally:
            plant.stop.set()
            await running

    asyncio.run(stage())


async def connect(port: int, timeout_s: float = 60.0) -> AsyncModbusTcpClient:
    client = AsyncModbusTcpClient("127.0.0.1", port=port, timeout=timeout_s, retries=0)
    while not await client.connect():  # the plant collects garbage before its first part, which may take long
        pass
    return client


async def stats(port: int) -> dict[str, Any]:
    def get() -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=60) as answer:
            return json.load(answer)

    return dict(await asyncio.to_thread(get))


async def until_done(plant: Plant) -> None:
    while not plant.status()["done"]:
        await asyncio.sleep(0.01)


def test_a_device_over_modbus_and_camera(tmp_path: Path) -> None:
    async def scene(plant: Plant, ports: dict[str, int]) -> None:
        client = await connect(ports["modbus_port"])
        reader, writer = await asyncio.open_connection("127.0.0.1", ports["camera_port"])
        await client.write_register(103, 1, device_id=3)
        for n in range(1, 9):
            header = HEADER.unpack(await reader.readexactly(HEADER.size))
            pixels = await reader.readexactly(header[-1])
            block = (await client.read_holding_registers(0, count=10, device_id=3)).registers
            assert header[3] == n == block[1], "the frame came before its part_seq"
            assert (block[0], block[5], block[6:8], block[8:10]) == (6, 1, [0, 1], [0, n])
            bad = pixels[0] >= 14
            await client.write_registers(100, [n, 2 if bad else 1, 10], device_id=3)
            if bad:
                await client.write_coil(100, True, device_id=3)
                await client.write_coil(100, False, device_id=3)
        await until_done(plant)
        told = await stats(ports["stats_port"])
        assert (told["parts"], told["answered"], told["recall"], told["overkill"]) == (8, 8, 1.0, 0.0)
        assert 0 < told["trigger_to_answer_ms"]["p50"] <= told["trigger_to_answer_ms"]["max"]
        assert told["line_state_name"] == "Completed"
        rows = [json.loads(row) for row in (tmp_path / "parts.jsonl").read_text().splitlines()]
        assert [r["part_seq"] for r in rows] == list(range(1, 9))
        assert all(r["diverted"] == r["truth_defect"] == r["pulse_seen"] for r in rows)
        assert max(r["latency_ms"] for r in rows) == told["trigger_to_answer_ms"]["max"]
        writer.close()
        client.close()

    play(tmp_path, LineSection(parts=8, parts_per_s=20, wait_for_device=True, transition_ms=5), scene)


def test_requests_outside_the_map_get_exception_2(tmp_path: Path) -> None:
    async def scene(plant: Plant, ports: dict[str, int]) -> None:
        client = await connect(ports["modbus_port"])
        answers = [
            await client.read_holding_registers(10, count=1, device_id=3),
            await client.read_holding_registers(0, count=1, device_id=4),
            await client.read_input_registers(0, count=1, device_id=3),
            await client.read_coils(0, count=1, device_id=3),
            await client.write_register(1, 5, device_id=3),
            await client.write_registers(104, [1, 1], device_id=3),
        ]
        assert [a.exception_code for a in answers] == [2] * len(answers)
        assert (await client.read_coils(100, count=1, device_id=3)).bits[0] is False
        client.close()

    play(tmp_path, LineSection(auto_start=False), scene)


def test_a_mute_plc_gives_no_answer_at_all(tmp_path: Path) -> None:
    scenario = tmp_path / "s.toml"
    scenario.write_text('[[fault]]\nkind = "no_answer"\npart = 0\nduration_ms = 600000\n')

    async def scene(plant: Plant, ports: dict[str, int]) -> None:
        while not plant.plc.mute:
            await asyncio.sleep(0.005)
        client = await connect(ports["modbus_port"], 0.3)
        with pytest.raises(Exception, match=r"(?i)no response"):
            await client.read_holding_registers(0, count=2, device_id=3)
        plant.plc._mute_until_ns = 0
        client.close()
        client = await connect(ports["modbus_port"])
        assert (await client.read_holding_registers(1, count=1, device_id=3)).registers[0] > 0
        client.close()

    play(tmp_path, LineSection(transition_ms=5), scene, scenario=scenario)


def test_opc_ua_shows_the_same_tags_and_takes_the_same_answer(tmp_path: Path) -> None:
    from asyncua import Client, ua

    async def scene(plant: Plant, ports: dict[str, int]) -> None:
        async with Client(f"opc.tcp://127.0.0.1:{ports['opcua_port']}") as client:
            index = await client.get_namespace_index("urn:gudgeon:plc")

            def node(name: str) -> Any:
                return client.get_node(ua.NodeId(name, index))

            async def write(name: str, value: object, kind: ua.VariantType) -> None:
                await node(name).write_attribute(ua.AttributeIds.Value, ua.DataValue(ua.Variant(value, kind)))

            word = ua.VariantType.UInt16
            await write("heartbeat", 1, word)
            while not (seq := await node("part_seq").read_value()):
                await asyncio.sleep(0.002)
            assert await node("line_state").read_value() == 6
            assert (await node("serial").read_data_value()).Value.VariantType is ua.VariantType.UInt32
            await write("result", 2, word)
            await write("score", 500, word)
            assert plant.plc._open[seq].answers == 0
            await write("result_seq", seq, word)
            await write("reject_coil", True, ua.VariantType.Boolean)
            assert await node("reject_coil").read_value() is True
            await write("reject_coil", False, ua.VariantType.Boolean)
            modbus = await connect(ports["modbus_port"])
            assert (await modbus.read_holding_registers(100, count=3, device_id=3)).registers == [seq, 2, 500]
            modbus.close()
            for name, value in (("part_seq", 3), ("result", 3.0)):
                kind = word if name == "part_seq" else ua.VariantType.Double
                with pytest.raises(ua.UaStatusCodeError):
                    await write(name, value, kind)
        await until_done(plant)
        rows = [json.loads(row) for row in (tmp_path / "parts.jsonl").read_text().splitlines()]
        assert (rows[0]["result"], rows[0]["score"], rows[0]["pulse_seen"]) == (2, 500, True)
        assert not rows[1]["answered"]

    play(tmp_path, LineSection(parts=2, parts_per_s=2, transition_ms=5), scene, opcua=True)


def test_a_subscriber_of_opc_ua_is_told(tmp_path: Path) -> None:
    from asyncua import Client, ua

    class Handler:
        def __init__(self) -> None:
            self.values: list[int] = []

        def datachange_notification(self, node: Any, value: int, data: Any) -> None:
            self.values.append(value)

    async def scene(plant: Plant, ports: dict[str, int]) -> None:
        handler = Handler()
        async with Client(f"opc.tcp://127.0.0.1:{ports['opcua_port']}") as client:
            index = await client.get_namespace_index("urn:gudgeon:plc")
            subscription = await client.create_subscription(50, handler)
            await subscription.subscribe_data_change(client.get_node(ua.NodeId("part_seq", index)))
            while 3 not in handler.values:
                await asyncio.sleep(0.01)
        assert handler.values == sorted(handler.values)

    play(tmp_path, LineSection(parts=4, parts_per_s=5, transition_ms=5), scene, opcua=True)
