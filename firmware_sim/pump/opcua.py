"""The sensors as OPC UA nodes (`ns=<index of urn:gudgeon:pump>;s=<tag>`), with a history of the last values; the newest wave is
the Float array `wave`, its number `wave_number`. asyncua is loaded lazily.

A missing value has the status Bad (sensor failure); while the plant is mute, Bad (communication error).
"""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from firmware_sim.errors import MissingError, ResourceError
from firmware_sim.plc_opcua import claim
from firmware_sim.pump.plant import Plant
from firmware_sim.pump.tags import TAGS

NAMESPACE = "urn:gudgeon:pump"
HISTORY_COUNT = 10_000
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)


class PumpOpcUa:
    def __init__(self, plant: Plant) -> None:
        try:
            import asyncua
        except ModuleNotFoundError as error:
            raise MissingError(
                "opcua needs asyncua; install it with: pip install 'gudgeon[sim]', or set opcua.enabled = false"
            ) from error
        self._plant, self._asyncua, self._ua = plant, asyncua, asyncua.ua
        self._server: Any = None
        self._nodes: dict[str, Any] = {}
        self._wave_number = -1

    async def start(self, host: str, port: int) -> int:
        """Listen; the port that was taken."""
        with claim(host, port) as taken:
            await self._listen(host, taken)
        return taken

    async def _listen(self, host: str, port: int) -> None:
        ua, server = self._ua, self._asyncua.Server()
        await server.init()
        server.set_endpoint(f"opc.tcp://{host}:{port}/")
        server.set_server_name("Gudgeon simulated pump")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        index = await server.register_namespace(NAMESPACE)
        pump = await server.nodes.objects.add_object(index, "Pump")
        for tag in TAGS:
            variant = ua.Variant(0.0, ua.VariantType.Double)
            self._nodes[tag.name] = await pump.add_variable(ua.NodeId(tag.name, index), tag.name, variant)
        wave = ua.Variant([0.0], ua.VariantType.Float)
        self._nodes["wave"] = await pump.add_variable(ua.NodeId("wave", index), "wave", wave)
        number = ua.Variant(0, ua.VariantType.UInt16)
        self._nodes["wave_number"] = await pump.add_variable(ua.NodeId("wave_number", index), "wave_number", number)
        try:
            await server.start()
        except OSError as error:
            raise ResourceError(f"opcua: cannot listen on {host}:{port}: {error.strerror or error}") from error
        for tag in TAGS:
            await server.historize_node_data_change(
                self._nodes[tag.name], period=timedelta(days=1), count=HISTORY_COUNT
            )
        self._server = server

    async def refresh(self) -> None:
        for tag in TAGS:
            await self._nodes[tag.name].write_value(self._value(self._plant.plain.get(tag.name, math.nan)))
        if self._wave_number != self._plant.wave_number:
            self._wave_number = self._plant.wave_number
            wave = self._ua.Variant(self._plant.wave.tolist(), self._ua.VariantType.Float)
            await self._nodes["wave"].write_value(self._ua.DataValue(wave))
            number = self._ua.Variant(self._wave_number, self._ua.VariantType.UInt16)
            await self._nodes["wave_number"].write_value(self._ua.DataValue(number))

    async def close(self) -> None:
        if self._server is not None:
            await self._server.stop()

    def _value(self, value: float) -> Any:
        ua, now = self._ua, datetime.now(UTC)
        if math.isfinite(value) and not self._plant.mute:
            return ua.DataValue(ua.Variant(value, ua.VariantType.Double), SourceTimestamp=now)
        code = ua.StatusCodes.BadCommunicationError if self._plant.mute else ua.StatusCodes.BadSensorFailure
        return ua.DataValue(ua.Variant(0.0, ua.VariantType.Double), ua.StatusCode(code), SourceTimestamp=now)
