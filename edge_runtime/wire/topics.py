"""The MQTT topics, one table.

v1/<enterprise>/<site>/<area>/<line>/<cell>/<device>/<leaf>

leaf      direction        retained  payload
events    device → cloud   no        record lines under a signed header (`batch.encode_batch`)
ack       cloud → device   no        what is committed of each stream (`batch.Ack`)
status    device → cloud   yes       {"online": bool, "boot_id": str}; also the last will
desired   cloud → device   yes       the state that the device is asked to take, signed (`desired.Desired`)
reported  device → cloud   yes       the state that it has taken (`desired.Reported`)
command   cloud → device   no        one signed command (`command.Command`); what became of it is told by Events
now       device → anyone  yes       `now/<stream>/<kind>`: the newest Event of its kind, plain JSON or CBOR (optional)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

VERSION = "v1"
LEAVES = ("events", "ack", "status", "desired", "reported", "command")
NOW = "now"
SEGMENT = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True)
class Place:
    """Where a device stands in the unified namespace (ISA-95 levels), one segment each: 1–64 of ``A-Za-z0-9_.-``."""

    enterprise: str
    site: str
    area: str
    line: str
    cell: str
    device: str

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not SEGMENT.fullmatch(value):
                raise ValueError(f"{name} = {value!r}: expected 1 to 64 characters of A-Z a-z 0-9 _ . -")

    def topic(self, leaf: str) -> str:
        if leaf not in LEAVES:
            raise ValueError(f"unknown topic leaf {leaf!r}: expected one of {', '.join(LEAVES)}")
        return "/".join((VERSION, self.enterprise, self.site, self.area, self.line, self.cell, self.device, leaf))

    def now(self, stream: str, kind: str) -> str:
        """Where the newest Event of a kind is told; both must be segments."""
        for name, value in (("stream", stream), ("kind", kind)):
            if not SEGMENT.fullmatch(value):
                raise ValueError(f"{name} = {value!r}: expected 1 to 64 characters of A-Z a-z 0-9 _ . -")
        levels = (self.enterprise, self.site, self.area, self.line, self.cell, self.device)
        return "/".join((VERSION, *levels, NOW, stream, kind))


def subscription(leaf: str) -> str:
    """The filter that matches `leaf` of every device."""
    return f"{VERSION}/+/+/+/+/+/+/{leaf}"


def parse(topic: str) -> tuple[Place, str]:
    """Split a topic into its place and leaf; ValueError if it is not one of ours."""
    parts = topic.split("/")
    if len(parts) != 8 or parts[0] != VERSION or parts[7] not in LEAVES:
        raise ValueError(f"topic {topic!r} is not {VERSION}/<enterprise>/<site>/<area>/<line>/<cell>/<device>/<leaf>")
    return Place(*parts[1:7]), parts[7]
