"""`[[endpoints]]` and `[[tags]]` of device.toml: sensors that the device reads, beside the PLC of `[plc]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from edge_runtime.field.tag import WORDS, Space, Tag, TagType, WordOrder
from edge_runtime.mqtt_access import LOOPBACK, BrokerAccess

Protocol = Literal["modbus-tcp", "modbus-rtu", "opcua", "mqtt"]
Security = Literal["none", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"]
DEFAULT_PORT = {"modbus-tcp": 502, "modbus-rtu": 0, "opcua": 4840, "mqtt": 1883}
COUNT_LIMIT = 8192


@dataclass(frozen=True)
class EndpointSection(BrokerAccess):
    """How to reach one device. `port` 0: the protocol's own. `serial` to `stopbits` are for modbus-rtu; endpoints with the same
    serial device (or host and port) share one line. `url_path` to `history` are for opcua, where `cert_file` and `key_file` are a
    user's certificate; `tls` and `ca_file` are for mqtt."""

    name: str = ""
    protocol: Protocol = "modbus-tcp"
    host: str = "127.0.0.1"
    port: int = 0
    unit_id: int = 1
    timeout_ms: int = 500
    serial: str = ""
    baudrate: int = 19200
    parity: Literal["N", "E", "O"] = "E"
    stopbits: int = 1
    url_path: str = ""
    security: Security = "none"
    publishing_ms: int = 500
    queue: int = 100
    history: bool = True

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("an endpoint has no name; give one: the tags refer to it")
        if problem := self._problem():
            raise ValueError(f"endpoint {self.name}: {problem}")
        if self.protocol == "mqtt":
            self.check(self.host)

    def _problem(self) -> str:
        user = bool(self.username or self.password_file)
        checks = (
            (not 0 <= self.port <= 65535, f"port = {self.port}: expected 0 to 65535"),
            (not 0 <= self.unit_id <= 255, f"unit_id = {self.unit_id}: expected 0 to 255"),
            (self.timeout_ms <= 0 or self.publishing_ms <= 0, "expected timeout_ms and publishing_ms of more than 0"),
            (self.stopbits not in (1, 2), f"stopbits = {self.stopbits}: expected 1 or 2"),
            (self.baudrate <= 0 or self.queue <= 0, "expected baudrate and queue of more than 0"),
            (self.protocol == "modbus-rtu" and not self.serial, 'expected serial, such as "/dev/ttyUSB0"'),
            (self.protocol != "modbus-rtu" and bool(self.serial), "serial is for modbus-rtu alone"),
            ((self.cert_file is None) != (self.key_file is None), "expected cert_file and key_file, or neither"),
            (self.protocol in ("modbus-tcp", "modbus-rtu") and (user or self.tls), "Modbus has no login and no TLS"),
            (self.protocol == "opcua" and self.tls, "OPC UA has its own encryption: set security"),
            (self.protocol != "opcua" and self.security != "none", "security is for opcua; for mqtt set tls = true"),
            (
                self.protocol == "opcua" and user and self.security == "none" and self.host not in LOOPBACK,
                f"a password would cross the network to {self.host} unencrypted; set security",
            ),
            (
                self.protocol == "opcua" and bool(self.cert_file) and self.security == "none",
                "a login by certificate needs security",
            ),
            (
                self.protocol == "opcua" and bool(self.cert_file) and user,
                "expected a password or a certificate, not both",
            ),
        )
        return next((text for wrong, text in checks if wrong), "")

    @property
    def port_or_default(self) -> int:
        if self.port == 0 and self.protocol == "mqtt" and self.tls:
            return 8883
        return self.port or DEFAULT_PORT[self.protocol]

    @property
    def line(self) -> tuple[str, str, int]:
        """What endpoints share that are reached the same way."""
        return (self.protocol, self.serial or self.host, 0 if self.serial else self.port_or_default)


@dataclass(frozen=True)
class TagSection:
    """A sensor's point. `address` for Modbus (zero-based), `node` for OPC UA, `topic` and `path` for MQTT. `period_s`: how often
    it is read (Modbus) or sampled (OPC UA). `stale_s` (MQTT): silence after which it is BAD; 0: never."""

    name: str
    endpoint: str
    type: TagType = "float32"
    space: Space = "holding"
    address: int = -1
    node: str = ""
    topic: str = ""
    path: str = ""
    unit: str = ""
    word_order: WordOrder = "ABCD"
    scale: float = 1.0
    offset: float = 0.0
    low: float | None = None
    high: float | None = None
    deadband: float = 0.0
    max_step: float = 0.0
    period_s: float = 1.0
    report_every_s: float = 60.0
    stale_s: float = 0.0
    count: int = 1
    rate_hz: float = 0.0

    def __post_init__(self) -> None:
        bits = self.space in ("coil", "discrete")
        checks = (
            (not -1 <= self.address <= 65536 - WORDS[self.type], f"address = {self.address}: expected 0 to 65535"),
            (self.scale == 0, "scale = 0: expected another number"),
            (self.period_s <= 0 or self.report_every_s <= 0, "expected period_s and report_every_s of more than 0"),
            (min(self.deadband, self.max_step, self.stale_s, self.rate_hz) < 0, "expected no negative bound"),
            (not 1 <= self.count <= COUNT_LIMIT, f"count = {self.count}: expected 1 to {COUNT_LIMIT}"),
            (self.count > 1 and self.rate_hz <= 0, "a wave (count above 1) needs rate_hz"),
            (self.low is not None and self.high is not None and self.low >= self.high, "expected low below high"),
            (any(c in self.topic for c in "+#"), f"topic = {self.topic!r}: expected one topic, no pattern"),
            (bits and self.type != "bool", f'space = "{self.space}" holds bits: set type = "bool"'),
        )
        if problem := next((text for wrong, text in checks if wrong), ""):
            raise ValueError(f"tag {self.name}: {problem}")

    @property
    def tag(self) -> Tag:
        shared = {f.name for f in fields(Tag)} & {f.name for f in fields(self)}
        values = {name: getattr(self, name) for name in shared}
        return Tag(**{**values, "address": max(0, self.address)})


NEEDS = {"modbus-tcp": "address", "modbus-rtu": "address", "opcua": "node", "mqtt": "topic"}


def check(endpoints: Sequence[EndpointSection], tags: Sequence[TagSection]) -> None:
    """ValueError for names that are used twice or missing, and for tags that their endpoint cannot find."""
    for kind, names in (("endpoint", [e.name for e in endpoints]), ("tag", [t.name for t in tags])):
        if twice := next((n for n in names if names.count(n) > 1), None):
            raise ValueError(f"two {kind}s are called {twice!r}")
    known = {e.name: e for e in endpoints}
    for one in endpoints:
        other = next(e for e in endpoints if e.line == one.line)
        if one.serial and (one.baudrate, one.parity, one.stopbits) != (other.baudrate, other.parity, other.stopbits):
            raise ValueError(f"endpoints {other.name} and {one.name} share {one.serial} with different settings")
    for tag in tags:
        if tag.endpoint not in known:
            raise ValueError(f"tag {tag.name}: no endpoint {tag.endpoint!r}; known: {', '.join(known) or 'none'}")
        protocol = known[tag.endpoint].protocol
        if getattr(tag, NEEDS[protocol]) in ("", -1):
            raise ValueError(f"tag {tag.name}: endpoint {tag.endpoint} is {protocol}: set {NEEDS[protocol]}")
        if protocol == "mqtt" and tag.count > 1:
            raise ValueError(f"tag {tag.name}: MQTT carries single values here: set count = 1")
