"""The shell of the line: servers, feeder and clock around the PLC, in one event loop, until SIGTERM or SIGINT.

Everything is loaded before the ready file appears; after that the garbage collector has little left to look at, and no
work but the PLC's own is done in the loop. After the last part the line stays Completed and goes on serving.

A real PLC has a processor of its own. So that its stamps show the device and not the load of this machine, the simulator
takes a higher priority where it is allowed to, and hands the interpreter over quickly to the loop.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firmware_sim import source
from firmware_sim.camera import Camera
from firmware_sim.config import Config
from firmware_sim.errors import ResourceError
from firmware_sim.feeder import Feeder
from firmware_sim.line import Conveyor, Layout
from firmware_sim.partlog import PartLog
from firmware_sim.plc import Plc
from firmware_sim.plc_modbus import ModbusPlc
from firmware_sim.scenario import Schedule
from firmware_sim.scenario import load as load_scenario
from firmware_sim.stats import Stats

REALTIME_PRIORITY = 5  # below a device on the same machine
SWITCH_INTERVAL_S = 0.0005


class Plant:
    """One simulated line with its servers. `start`, then `run` until `stop` is set."""

    def __init__(self, config: Config) -> None:
        line = config.line
        self.config = config
        faults = load_scenario(config.scenario) if config.scenario else ()
        self.source = source.make(config.source, line.seed, line.parts)
        self.source.preload(line.parts)
        layout = Layout(line.parts_per_s, line.belt_speed_mm_s, line.jitter, line.gate_distance_mm)
        self.conveyor = Conveyor(layout, line.seed, line.parts or None)
        schedule = Schedule(faults)
        self.log = PartLog(config.log)
        self.camera = Camera()
        self.plc = Plc(config, self.conveyor, self.camera.push, self.log.add)
        self.feeder = Feeder(self.source, lambda n: schedule.of(n, self.conveyor.planned_s(n)))
        self.modbus = ModbusPlc(self.plc.registers, config.modbus.unit_id, lambda: self.plc.mute)
        self.stats = Stats(self.status)
        self.opcua: Any = None
        self.stop = asyncio.Event()
        self._wake = asyncio.Event()
        self.plc.wake = self.feeder.added = self._wake.set
        self.plc.camera_clients = lambda: len(self.camera.clients)

    async def start(self) -> dict[str, int]:
        """Listen everywhere; the ports by the names of the ready file."""
        c = self.config
        ports = {
            "modbus_port": await self.modbus.start(c.modbus.host, c.modbus.port),
            "camera_port": await self.camera.start(c.camera.host, c.camera.port),
            "stats_port": await self.stats.start(c.stats.host, c.stats.port),
        }
        if c.opcua.enabled:
            from firmware_sim.plc_opcua import OpcUaPlc

            self.opcua = OpcUaPlc(self.plc.registers, lambda: self.plc.mute)
            ports["opcua_port"] = await self.opcua.start(c.opcua.host, c.opcua.port)
        return ports

    async def run(self) -> None:
        feeding = asyncio.create_task(self.feeder.run())
        feeding.add_done_callback(lambda task: self._wake.set())
        stopping = asyncio.create_task(self.stop.wait())
        stopping.add_done_callback(lambda task: self._wake.set())
        gc.collect()
        gc.freeze()
        try:
            while not self.stop.is_set():
                if feeding.done():
                    feeding.result()
                self._wake.clear()
                self.plc.tick(self.feeder)
                await self._sleep()
        finally:
            feeding.cancel()
            stopping.cancel()
            await self.close()

    async def close(self) -> None:
        self.stats.close()
        self.camera.close()
        await self.modbus.close()
        if self.opcua is not None:
            await self.opcua.close()
        self.log.close()

    def status(self) -> dict[str, Any]:
        status = self.plc.status()
        return {
            **status,
            "done": status["done"] and self.log.settled,
            "source": self.source.describe,
            "camera_clients": len(self.camera.clients),
            "camera_clients_dropped": self.camera.dropped_clients,
            "log_problem": self.log.problem,
        }

    async def _sleep(self) -> None:
        due_s = self.plc.due_s()
        left_s = None if due_s is None else due_s - time.perf_counter_ns() / 1e9
        if left_s is not None and left_s <= 0 and not self._late_for_frame():
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(None if left_s is None or left_s <= 0 else left_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _late_for_frame(self) -> bool:
        """A part is due, but its frame is not ready: wait for the feeder instead of turning."""
        return not self.feeder.ready


def serve(config: Config, ready_file: Path | None) -> None:
    """Run the line until SIGTERM or SIGINT."""
    asyncio.run(_serve(config, ready_file))


async def _serve(config: Config, ready_file: Path | None) -> None:
    _hurry()
    plant = Plant(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, plant.stop.set)
    try:
        ports = await plant.start()
        if ready_file is not None:
            write_ready(ready_file, ports)
    except BaseException:
        await plant.close()
        raise
    print(f"line ready: {plant.source.describe}; " + ", ".join(f"{k} {v}" for k, v in ports.items()), file=sys.stderr)
    await plant.run()


def _hurry() -> None:
    """The PLC's own loop, and no thread that it starts, is scheduled in real time: a real PLC has a processor to itself."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(REALTIME_PRIORITY))
    except (OSError, AttributeError):
        pass  # not allowed: the line works, and its stamps show the machine's load as well


def write_ready(path: Path, ports: Mapping[str, object]) -> None:
    draft = path.with_name(path.name + ".new")
    try:
        draft.write_text(json.dumps(ports), encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise ResourceError(
            f"ready file {path}: cannot be written: {error.strerror}; choose another --ready-file"
        ) from error
