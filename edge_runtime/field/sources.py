"""From `[[endpoints]]` and `[[tags]]` to running Sources. Protocols are loaded where they are used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_runtime.clock import Clock, SystemClock
from edge_runtime.field.scan import Bus, Group, Scanner, Unit
from edge_runtime.field.sections import EndpointSection, TagSection
from edge_runtime.field.source import Sink, Source


def make_sources(
    endpoints: Sequence[EndpointSection],
    tags: Sequence[TagSection],
    sink: Sink,
    state_dir: Path,
    device: str,
    clock: Clock | None = None,
) -> list[Source]:
    """One Source for all that is polled, one for each OPC UA server and MQTT broker; endpoints without tags are left out. Nothing
    is started. MissingExtraError or ConfigError where something that they need is not there."""
    clock = clock or SystemClock()
    of = {e.name: [t for t in tags if t.endpoint == e.name] for e in endpoints}
    used = [e for e in endpoints if of[e.name]]
    out: list[Source] = []
    polled = [e for e in used if e.protocol in ("modbus-tcp", "modbus-rtu")]
    if polled:
        out.append(Scanner(_buses(polled, of, sink, clock)))
    for endpoint in used:
        if endpoint.protocol == "opcua":
            from edge_runtime.field.opcua_source import OpcUaSource
            from edge_runtime.field.opcua_trust import TrustList

            trust = TrustList(state_dir / "opcua", device)
            out.append(OpcUaSource(endpoint, [(t.tag, t.period_s) for t in of[endpoint.name]], sink, trust, clock))
        elif endpoint.protocol == "mqtt":
            from edge_runtime.field.mqtt_source import MqttSource

            client_id = f"gudgeon-{device}-{endpoint.name}"
            out.append(MqttSource(endpoint, [t.tag for t in of[endpoint.name]], sink, client_id, clock))
    return out


def groups(tags: Sequence[TagSection]) -> list[Group]:
    """Tags of one period are read together."""
    periods = sorted({t.period_s for t in tags})
    return [Group(period, tuple(t.tag for t in tags if t.period_s == period)) for period in periods]


def _buses(
    endpoints: Sequence[EndpointSection], of: dict[str, list[TagSection]], sink: Sink, clock: Clock
) -> list[Bus]:
    """One Bus for each line; endpoints that are reached the same way share it."""
    from edge_runtime.field.modbus import ModbusDriver
    from edge_runtime.field.modbus_line import Serial, serial_line, tcp_line

    lines: dict[tuple[str, str, int], list[EndpointSection]] = {}
    for endpoint in endpoints:
        lines.setdefault(endpoint.line, []).append(endpoint)
    out = []
    for sharing in lines.values():
        first, timeout_s = sharing[0], max(e.timeout_ms for e in sharing) / 1000
        if first.protocol == "modbus-rtu":
            line = serial_line(Serial(first.serial, first.baudrate, first.parity, first.stopbits), timeout_s)
        else:
            line = tcp_line(first.host, first.port_or_default, timeout_s)
        units = [
            Unit(e.name, ModbusDriver(unit_id=e.unit_id, clock=clock, line=line), groups(of[e.name])) for e in sharing
        ]
        out.append(Bus(units, sink, clock))
    return out
