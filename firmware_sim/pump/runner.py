"""The shell of the pump: servers and clock around the plant, in one event loop, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import Any

from firmware_sim.pump.config import PumpConfig
from firmware_sim.pump.modbus import PumpModbus
from firmware_sim.pump.plant import Plant
from firmware_sim.runner import write_ready
from firmware_sim.stats import Stats


class PumpRig:
    """One pump with its servers. `start`, then `run` until `stop` is set."""

    def __init__(self, config: PumpConfig) -> None:
        self.config = config
        self.plant = Plant(config)
        self.modbus = PumpModbus(self.plant)
        self.stats = Stats(self.plant.status)
        self.opcua: Any = None
        self.stop = asyncio.Event()

    async def start(self) -> dict[str, Any]:
        """Listen everywhere; the ports by the names of the ready file."""
        c = self.config
        self._begin_s = time.monotonic()
        self._refresh()
        ports: dict[str, Any] = {
            "modbus_port": await self.modbus.start(c.modbus.host, c.modbus.port),
            "stats_port": await self.stats.start(c.stats.host, c.stats.port),
        }
        if c.rtu.enabled:
            ports["rtu_device"] = await self.modbus.start_rtu(c.rtu.link)
        if c.opcua.enabled:
            from firmware_sim.pump.opcua import PumpOpcUa

            self.opcua = PumpOpcUa(self.plant)
            ports["opcua_port"] = await self.opcua.start(c.opcua.host, c.opcua.port)
        return ports

    async def run(self) -> None:
        period_s = self.config.pump.tag_period_ms / 1000
        try:
            while not self.stop.is_set():
                self._refresh()
                if self.opcua is not None:
                    await self.opcua.refresh()
                late_s = (time.monotonic() - self._begin_s) % period_s
                try:
                    async with asyncio.timeout(period_s - late_s):
                        await self.stop.wait()
                except TimeoutError:
                    pass
        finally:
            await self.close()

    async def close(self) -> None:
        self.stats.close()
        await self.modbus.close()
        if self.opcua is not None:
            await self.opcua.close()
        self.plant.truth.close()

    def _refresh(self) -> None:
        self.plant.tick(time.monotonic() - self._begin_s, time.time_ns())
        self.modbus.map.refresh()


def serve(config: PumpConfig, ready_file: Path | None) -> None:
    """Run the pump until SIGTERM or SIGINT."""
    asyncio.run(_serve(config, ready_file))


async def _serve(config: PumpConfig, ready_file: Path | None) -> None:
    rig = PumpRig(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, rig.stop.set)
    try:
        ports = await rig.start()
        if ready_file is not None:
            write_ready(ready_file, ports)
    except BaseException:
        await rig.close()
        raise
    print("pump ready: " + ", ".join(f"{k} {v}" for k, v in ports.items()), file=sys.stderr)
    await rig.run()
