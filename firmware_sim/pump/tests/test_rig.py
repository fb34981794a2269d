"""The pump's servers on this machine: Modbus TCP and RTU by hand, OPC UA, the truth, and the command."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import time
import tty
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from firmware_sim.cli import main
from firmware_sim.config import OpcUaSection
from firmware_sim.pump import dirt
from firmware_sim.pump.config import ModbusSection, PumpConfig, PumpSection, RtuSection, StatsSection
from firmware_sim.pump.plant import Plant
from firmware_sim.pump.runner import PumpRig

DAY = 86_400.0


def config(tmp_path: Path, scenario: str = "", **pump: Any) -> PumpConfig:
    path = None
    if scenario:
        path = tmp_path / "s.toml"
        path.write_text(scenario)
    return PumpConfig(
        pump=PumpSection(**{"tag_period_ms": 20, "wave_period_ms": 50, "wave_samples": 256, **pump}),
        modbus=ModbusSection(port=0),
        rtu=RtuSection(enabled=True, link=tmp_path / "rtu"),
        opcua=OpcUaSection(enabled=False),
        stats=StatsSection(port=0),
        scenario=path,
        truth=tmp_path / "truth.jsonl",
    )


def crc(frame: bytes) -> bytes:
    value = 0xFFFF
    for byte in frame:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
    return struct.pack("<H", value)


async def tcp_read(port: int, address: int, count: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(struct.pack(">HHHBBHH", 7, 0, 6, 1, 4, address, count))
        head = await reader.readexactly(8)
        return head[7:] + await reader.readexactly(struct.unpack(">H", head[4:6])[0] - 2)
    finally:
        writer.close()


def rtu_read(device: str, address: int, count: int) -> bytes:
    fd = os.open(device, os.O_RDWR | os.O_NOCTTY)
    try:
        tty.setraw(fd)
        ask = struct.pack(">BBHH", 1, 4, address, count)
        os.write(fd, ask + crc(ask))
        answer = b""
        while len(answer) < 5 + 2 * count:
            answer += os.read(fd, 256)
        assert crc(answer[:-2]) == answer[-2:]
        return answer[3:-2]
    finally:
        os.close(fd)


def test_modbus_tcp_and_rtu_tell_the_same(tmp_path: Path) -> None:
    async def check() -> None:
        rig = PumpRig(config(tmp_path, speed=0.001))
        ports = await rig.start()
        run = asyncio.create_task(rig.run())
        answer = await tcp_read(ports["modbus_port"], 0, 28)
        assert answer[:2] == bytes([4, 56])
        speed, valve, flow = struct.unpack(">fff", answer[2:14])
        assert speed == pytest.approx(1465, abs=20)
        assert 60 < valve < 100
        assert flow == pytest.approx(55, abs=8)
        over_rtu = await asyncio.to_thread(rtu_read, ports["rtu_device"], 0, 6)
        assert struct.unpack(">f", over_rtu[:4])[0] == pytest.approx(speed, abs=5)
        assert (tmp_path / "rtu").readlink() == Path(ports["rtu_device"])
        head = struct.unpack(">HHH", (await tcp_read(ports["modbus_port"], 1000, 3))[2:])
        assert head[1:] == (12_800, 256)
        wave = struct.unpack(">100h", (await tcp_read(ports["modbus_port"], 1010, 100))[2:])
        assert 10 < max(wave) < 2000
        assert await tcp_read(ports["modbus_port"], 500, 1) == bytes([0x84, 2])
        while struct.unpack(">H", (await tcp_read(ports["modbus_port"], 1000, 1))[2:])[0] == head[0]:
            await asyncio.sleep(0.01)
        rig.stop.set()
        await run

    asyncio.run(check())
    assert not (tmp_path / "rtu").exists()


def test_a_time_out_is_silence_and_is_in_the_truth(tmp_path: Path) -> None:
    async def check() -> None:
        rig = PumpRig(config(tmp_path, '[[dirt]]\nkind = "time_out"\nat_s = 0.0\nfor_s = 1e9\n'))
        ports = await rig.start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await tcp_read(ports["modbus_port"], 0, 2)
        await rig.close()

    asyncio.run(check())
    rows = [json.loads(line) for line in (tmp_path / "truth.jsonl").read_text().splitlines()]
    assert [r["event"] for r in rows] == ["dirt_begin", "state"]


def test_opc_ua_has_the_tags_the_wave_and_a_history(tmp_path: Path) -> None:
    asyncua = pytest.importorskip("asyncua")

    async def check() -> None:
        rig = PumpRig(dataclasses.replace(config(tmp_path), opcua=OpcUaSection(port=0)))
        ports = await rig.start()
        run = asyncio.create_task(rig.run())
        async with asyncua.Client(f"opc.tcp://127.0.0.1:{ports['opcua_port']}") as client:
            index = await client.get_namespace_index("urn:gudgeon:pump")
            flow = client.get_node(f"ns={index};s=flow")
            while len(await flow.read_raw_history(numvalues=3)) < 3:
                await asyncio.sleep(0.02)
            assert await flow.read_value() == pytest.approx(55, abs=8)
            assert len(await client.get_node(f"ns={index};s=wave").read_value()) == 256
            assert len(await flow.read_raw_history(numvalues=3)) == 3
        rig.stop.set()
        await run

    asyncio.run(check())


def test_accelerated_a_machine_fails_and_the_truth_says_when(tmp_path: Path) -> None:
    plant = Plant(config(tmp_path, speed=DAY, mode="outer"))
    since = 0.0
    while not plant.status()["failed"]:
        plant.tick(since, 0)
        since += 0.02
    plant.truth.close()
    rows = [json.loads(line) for line in (tmp_path / "truth.jsonl").read_text().splitlines()]
    events = {r["event"]: r["sim_s"] for r in rows}
    assert plant.life.begin_s <= events["fault_begin"] < plant.life.begin_s + DAY
    assert plant.life.failure_s <= events["failure"] < plant.life.failure_s + DAY
    states = [r for r in rows if r["event"] == "state"]
    assert all(a["health"] >= b["health"] for a, b in itertools.pairwise(states))
    assert states[0]["rul_s"] == pytest.approx(plant.life.failure_s, abs=1)


def test_a_stuck_value_stays_over_many_blocks(tmp_path: Path) -> None:
    plant = Plant(config(tmp_path, '[[dirt]]\nkind = "stuck"\ntag = "flow"\nat_s = 2\nfor_s = 50\n'))
    seen = []
    for step in range(3000):
        plant.tick(step * 0.02, 0)
        seen.append((plant.sim_s, plant.plain["flow"]))
    inside = {value for t, value in seen if 2.001 <= t < 51.9}
    assert len(inside) == 1
    assert len({value for t, value in seen if t > 52.1}) > 100


def test_random_dirt_comes_at_its_rate() -> None:
    number = sum(len(dirt.random_dirt(seed, 10, 7 * DAY)) for seed in range(100))
    assert number == pytest.approx(1000, rel=0.15)


def test_the_command_serves_until_sigterm(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    toml = tmp_path / "pump.toml"
    toml.write_text("[modbus]\nport = 0\n[stats]\nport = 0\n[opcua]\nenabled = false\n")
    code = "import sys; from firmware_sim.cli import main; sys.exit(main(sys.argv[1:]))"
    args = [sys.executable, "-c", code, "pump", "--config", str(toml), "--ready-file", str(ready), "--speed", "3600"]
    with subprocess.Popen(args, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        ports = json.loads(ready.read_text())
        with urllib.request.urlopen(f"http://127.0.0.1:{ports['stats_port']}/stats", timeout=60) as answer:
            status = json.load(answer)
        assert status["health"] == 1.0
        assert status["rul_s"] > 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["pump", "--mode", "rust"], 3, "pump.mode is 'rust'"),
        (["pump", "--speed", "0"], 3, "pump.speed is 0.0"),
        (["pump", "--config", "/nowhere"], 3, "no such file"),
        (["pump", "--sped", "1"], 2, "unrecognized arguments"),
    ],
)
def test_errors_are_one_line(args: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == code
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
