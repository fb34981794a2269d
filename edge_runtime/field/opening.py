"""From `[[endpoints]]` and `[[tags]]` to the Sources that read them. Endpoints that are reached the same way share one Bus.

Every reading is passed on, whatever the tag's deadband: windows need them all, and who tells the cloud goes by exception
himself (`judge.Exceptions`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from edge_runtime.errors import ConfigError
from edge_runtime.field.modbus import ModbusDriver
from edge_runtime.field.modbus_line import ModbusLine, Serial, serial_line, tcp_line
from edge_runtime.field.scan import Bus, Group, Scanner, Unit
from edge_runtime.field.sections import EndpointSection, TagSection
from edge_runtime.field.source import Sink, Source
from edge_runtime.field.tag import Tag

MODBUS = ("modbus-tcp", "modbus-rtu")


def open_source(endpoints: Sequence[EndpointSection], tags: Sequence[TagSection], sink: Sink) -> Source:
    """One Source for all of them, not started yet."""
    if other := [e for e in endpoints if e.protocol not in MODBUS]:
        raise ConfigError(f"endpoint {other[0].name}: this version reads sensors over {', '.join(MODBUS)} alone")
    buses: dict[tuple[str, str, int], list[EndpointSection]] = defaultdict(list)
    for endpoint in endpoints:
        buses[endpoint.line].append(endpoint)
    found = []
    for sharing in buses.values():
        line = _line(sharing[0])
        units = [_unit(endpoint, line, [t for t in tags if t.endpoint == endpoint.name]) for endpoint in sharing]
        if units := [unit for unit in units if unit.groups]:
            found.append(Bus(units, sink))
    return Scanner(found)


def _line(e: EndpointSection) -> ModbusLine:
    if e.protocol == "modbus-rtu":
        return serial_line(Serial(e.serial, e.baudrate, e.parity, e.stopbits), e.timeout_ms / 1000)
    return tcp_line(e.host, e.port_or_default, e.timeout_ms / 1000)


def _unit(e: EndpointSection, line: ModbusLine, tags: Sequence[TagSection]) -> Unit:
    groups: dict[float, list[Tag]] = defaultdict(list)
    for section in tags:
        groups[section.period_s].append(replace(section.tag, deadband=0.0, report_every_s=0.0))
    driver = ModbusDriver(unit_id=e.unit_id, line=line)
    return Unit(e.name, driver, [Group(period_s, tuple(found)) for period_s, found in groups.items()])
