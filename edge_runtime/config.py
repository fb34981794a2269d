"""Device configuration: `device.toml` to frozen dataclasses. Unknown keys are refused and the nearest key is named.

Relative paths are taken from the folder that the file is in.
"""

from __future__ import annotations

import difflib
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from edge_runtime.decide.asset_config import AssetSection
from edge_runtime.decide.points import Commands
from edge_runtime.decide.trial_settings import TrialSection
from edge_runtime.errors import ConfigError
from edge_runtime.field import sections
from edge_runtime.field.sections import EndpointSection, TagSection
from edge_runtime.field.tag import WORDS
from edge_runtime.link.sparkplug.settings import SparkplugSection
from edge_runtime.mqtt_access import LOOPBACK, BrokerAccess
from edge_runtime.outbox.policy import Storage
from edge_runtime.tls_files import CERTIFICATE, KEY, ROOTS
from edge_runtime.update import config_bundle
from edge_runtime.wire.desired import KEYS, check_state
from edge_runtime.wire.enrolment import HARDWARE
from edge_runtime.wire.topics import Place

T = TypeVar("T")


@dataclass(frozen=True)
class DeviceSection:
    id: str
    state_dir: Path
    enterprise: str = "acme"
    site: str = "site1"
    area: str = "area1"
    line: str = "line1"
    cell: str = "cell1"


@dataclass(frozen=True)
class PlcMap:
    """Zero-based addresses of the handshake (docs/reference/plc-handshake.md); the defaults are the simulator's.
    `recipe`, `lot` and `serial` are optional inputs: -1 means that the PLC has none."""

    line_state: int = 0
    part_seq: int = 1
    encoder: int = 2
    belt_speed: int = 4
    recipe: int = -1
    lot: int = -1
    serial: int = -1
    result_seq: int = 100
    result: int = 101
    score: int = 102
    heartbeat: int = 103
    health: int = 104
    reject_coil: int = 100

    def __post_init__(self) -> None:
        for name, address in vars(self).items():
            least = -1 if name in ("recipe", "lot", "serial") else 0
            if not least <= address <= 65535:
                raise ValueError(f"{name} = {address}: expected an address from {least} to 65535")

    @property
    def registers(self) -> set[tuple[str, int]]:
        """Every register and coil of the handshake."""
        words = {"encoder": WORDS["uint32"], "lot": WORDS["uint32"], "serial": WORDS["uint32"]}
        found = {("coil", self.reject_coil)}
        for name, address in vars(self).items():
            if name != "reject_coil" and address >= 0:
                found |= {("holding", address + i) for i in range(words.get(name, 1))}
        return found


@dataclass(frozen=True)
class PlcSection:
    protocol: Literal["modbus", "opcua"] = "modbus"
    host: str = "127.0.0.1"
    port: int = 502
    unit_id: int = 1
    timeout_ms: int = 500
    poll_ms: float = 1.0
    pulse_ms: int = 0
    map: PlcMap = field(default_factory=PlcMap)

    def __post_init__(self) -> None:
        _check_port(self.port)
        _check_positive(self, "timeout_ms", "poll_ms")
        if not 0 <= self.unit_id <= 255 or self.pulse_ms < 0:
            raise ValueError("expected unit_id from 0 to 255 and pulse_ms >= 0")


@dataclass(frozen=True)
class CameraSection:
    """`folder`: one image per trigger, cycling by file name. `socket`: the frame protocol of docs/reference/frames.md.
    `v4l2`: a `/dev/video*` device."""

    driver: Literal["folder", "socket", "v4l2"] = "folder"
    path: Path = Path()
    host: str = "127.0.0.1"
    port: int = 0
    width: int = 640
    height: int = 480

    def __post_init__(self) -> None:
        _check_port(self.port)
        _check_positive(self, "width", "height")


@dataclass(frozen=True)
class BundleSection:
    """`path` is installed at start if it is not yet active (the same as `gudgeon install`). `shadow` is a second bundle
    that runs off the critical path. `recipes` maps a PLC recipe code (as text) to further bundles; `path` serves the
    codes that are not listed."""

    path: Path | None = None
    shadow: Path | None = None
    recipes: Mapping[str, Path] = field(default_factory=dict)
    engine: Literal["auto", "onnxruntime", "litert", "reference"] = "auto"


@dataclass(frozen=True)
class ControlSection:
    deadline_ms: float = 20.0
    frame_timeout_ms: float = 15.0
    heartbeat_ms: int = 250
    realtime: bool = True
    review_max_bytes: int = 64 * 1024 * 1024
    share_review_frames: bool = False

    def __post_init__(self) -> None:
        _check_positive(self, "deadline_ms", "frame_timeout_ms", "heartbeat_ms")
        if self.review_max_bytes < 0:
            raise ValueError(f"review_max_bytes = {self.review_max_bytes}: expected 0 (keep none) or more")


@dataclass(frozen=True)
class BrokerSection(BrokerAccess):
    """`enrolled`: TLS with the certificate, key and roots that `gudgeon enroll` has left in the state folder."""

    host: str = "127.0.0.1"
    port: int = 1883
    keepalive_s: int = 30
    enrolled: bool = False

    def __post_init__(self) -> None:
        if self.enrolled and (not self.tls or self.ca_file or self.cert_file or self.username):
            raise ValueError("enrolled = true goes with tls = true, and without ca_file, cert_file and username")
        _check_port(self.port)
        _check_positive(self, "keepalive_s")
        self.check(self.host)


@dataclass(frozen=True)
class LinkSection:
    """`protocol`: `gudgeon`, signed batches that our cloud acknowledges, or `sparkplug`. `uns`: beside the batches, the newest
    Event of each kind as a plain retained message. The rest: how the uplink uses its line; the cloud may ask for other
    values (`wire.desired`), which go before these."""

    protocol: Literal["gudgeon", "sparkplug"] = "gudgeon"
    uns: Literal["off", "json", "cbor"] = "off"
    reconnect_spread_s: float = 0.0
    rate_bytes_per_s: int = 0
    backlog_share: float = 0.5
    metered: bool = False
    metered_priority: int = 2
    debug_hog: bool = False

    def __post_init__(self) -> None:
        check_state({name: getattr(self, name) for name in KEYS})
        if self.protocol == "sparkplug" and self.uns != "off":
            raise ValueError(f'uns = "{self.uns}" goes with protocol = "gudgeon" only')


@dataclass(frozen=True)
class CloudSection:
    """`public_key`: the cloud whose desired state and commands this device takes, in base64; else the file
    `<state_dir>/identity/cloud.pub`; where there is neither, it takes none."""

    public_key: str = ""


@dataclass(frozen=True)
class MetricsSection:
    """Where `link` serves /metrics, on this machine only; `port` 0: nowhere."""

    host: str = "127.0.0.1"
    port: int = 9464

    def __post_init__(self) -> None:
        _check_port(self.port)
        if self.host not in LOOPBACK:
            raise ValueError(
                f"host is {self.host!r}, expected one of {', '.join(LOOPBACK)}: metrics stay on the device"
            )


@dataclass(frozen=True)
class UpdateSection:
    """Where releases come from; neither `url` nor `medium`: this device asks nobody. `url` is the cloud's device listener
    (``https://cloud.example:8443``), `medium` the folder of a medium in its place; `ca`: the certificate that the cloud is
    checked against. `key` and `certificate`: what the device says who it is with (default: what enrolment has left in
    `<state_dir>/identity`). `poll_s`: how often it asks, give or take a fifth. `store_bytes`: what all releases on the device may
    take. `rate_bytes_per_s`: of a download, 0: no limit. `proxy`: ``http://[user:password@]host:port``, "direct" for none, "" for
    what the environment says (`https_proxy`, …). `hardware`: which artifacts fit, "": what the processor is. `allow_local`:
    `gudgeon install` works on a managed device."""

    url: str = ""
    medium: Path | None = None
    ca: Path | None = None
    key: Path | None = None
    certificate: Path | None = None
    poll_s: float = 300.0
    store_bytes: int = 2 * 1024**3
    rate_bytes_per_s: int = 0
    proxy: str = ""
    hardware: str = ""
    allow_local: bool = False

    def __post_init__(self) -> None:
        _check_positive(self, "poll_s")
        if self.store_bytes < 0 or self.rate_bytes_per_s < 0:
            raise ValueError("expected store_bytes >= 0 and rate_bytes_per_s >= 0")
        if self.url and not self.url.startswith("https://"):
            raise ValueError(
                f"url is {self.url!r}, expected https://HOST:PORT: a device proves who it is by its certificate"
            )
        if self.url and self.medium:
            raise ValueError("expected url or medium: a device takes its releases from one place")

    @property
    def takes(self) -> bool:
        """Does this device ask for updates?"""
        return bool(self.url or self.medium)


@dataclass(frozen=True)
class IdentitySection:
    """`url`: the cloud's listener for devices, where the certificate comes from; "": that of `update.url`. `hardware_id`: what an
    enrolment token is bound to, "": what the board says."""

    url: str = ""
    hardware_id: str = ""

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith("https://"):
            raise ValueError(f"url is {self.url!r}, expected https://HOST:PORT")
        if self.hardware_id and not HARDWARE.fullmatch(self.hardware_id):
            raise ValueError(
                f"hardware_id is {self.hardware_id!r}, expected 1 to 128 characters of A-Z a-z 0-9 : _ . -"
            )


@dataclass(frozen=True)
class DeviceConfig:
    device: DeviceSection
    plc: PlcSection = field(default_factory=PlcSection)
    camera: CameraSection = field(default_factory=CameraSection)
    bundle: BundleSection = field(default_factory=BundleSection)
    control: ControlSection = field(default_factory=ControlSection)
    broker: BrokerSection = field(default_factory=BrokerSection)
    link: LinkSection = field(default_factory=LinkSection)
    sparkplug: SparkplugSection = field(default_factory=SparkplugSection)
    storage: Storage = field(default_factory=Storage)
    cloud: CloudSection = field(default_factory=CloudSection)
    commands: Commands = field(default_factory=Commands)
    metrics: MetricsSection = field(default_factory=MetricsSection)
    trial: TrialSection = field(default_factory=TrialSection)
    update: UpdateSection = field(default_factory=UpdateSection)
    identity: IdentitySection = field(default_factory=IdentitySection)
    endpoints: tuple[EndpointSection, ...] = ()
    tags: tuple[TagSection, ...] = ()
    assets: tuple[AssetSection, ...] = ()

    def __post_init__(self) -> None:
        _ = self.place  # the names must fit a topic
        sections.check(self.endpoints, self.tags)
        names = [asset.name for asset in self.assets]
        if len(set(names)) != len(names):
            raise ValueError(f"assets: two have the same name; there are {', '.join(names)}")
        known = {tag.name: tag.count for tag in self.tags}
        for asset in self.assets:
            for name in asset.tags:
                block = name.rpartition(".")[0]  # of vibration, which gives <tag>.rms and others
                if name not in known and known.get(block, 1) == 1:
                    near = difflib.get_close_matches(name, known, n=1)
                    hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known) or 'none'}"
                    raise ValueError(f"assets {asset.name}: no [[tags]] table is named {name!r}{hint}")
        taken = self.plc.map.registers
        for name, point in self.commands.points.items():
            if point.registers & taken:
                raise ValueError(
                    f"commands.points.{name}: address {point.address} belongs to the handshake (plc.map); a command must "
                    "not write there"
                )

    @property
    def has_line(self) -> bool:
        """Is there a PLC line to control? A file that has assets or tags and no word of PLC, camera or bundle has none."""
        line = (self.plc, self.camera, self.bundle)
        return not self.has_sensors or line != (PlcSection(), CameraSection(), BundleSection())

    @property
    def has_sensors(self) -> bool:
        """Is there something for `monitor`: machines to watch, or tags whose values are told?"""
        return bool(self.assets or self.tags)

    @property
    def broker_access(self) -> BrokerAccess:
        """`broker`, with the files of the enrolment where it is to use them."""
        if not self.broker.enrolled:
            return self.broker
        at = self.device.state_dir
        return BrokerAccess(tls=True, ca_file=at / ROOTS, cert_file=at / CERTIFICATE, key_file=at / KEY)

    @property
    def place(self) -> Place:
        d = self.device
        return Place(d.enterprise, d.site, d.area, d.line, d.cell, d.id)


def _check_port(port: int) -> None:
    if not 0 <= port <= 65535:
        raise ValueError(f"port = {port}: expected 0 to 65535")


def _check_positive(section: object, *names: str) -> None:
    for name in names:
        if not getattr(section, name) > 0:
            raise ValueError(f"{name} = {getattr(section, name)}: expected more than 0")


def load_device(path: Path) -> DeviceConfig:
    """Read `device.toml`, and what an installed configuration lays over it; ConfigError as in `load`."""
    data = _read(path)
    own = _build(DeviceConfig, data, path, "")
    overlay = config_bundle.overlay_of(own.device.state_dir)
    return with_overlay(path, overlay) if overlay else own


def with_overlay(path: Path, overlay: Mapping[str, Any]) -> DeviceConfig:
    """`device.toml` with a configuration over it; ConfigError where they do not go together."""
    try:
        return _build(DeviceConfig, config_bundle.merge(_read(path), overlay), path, "")
    except ConfigError as error:
        raise ConfigError(f"with the configuration of a release over it: {error}") from error


def load(path: Path, kind: type[T]) -> T:
    """Read a TOML file into `kind`; ConfigError names the file, the key, what was expected and the nearest key."""
    return _build(kind, _read(path), path, "")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; see docs/reference for a minimal one") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _build(kind: type[T], data: Mapping[str, Any], path: Path, where: str) -> T:
    hints = typing.get_type_hints(kind)
    for name in data:
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            hint = f"; did you mean {where}{near[0]}?" if near else f"; known keys: {', '.join(hints)}"
            raise ConfigError(f"{path}: unknown key {where}{name}{hint}")
    values = {}
    for f in fields(kind):  # type: ignore[arg-type]
        if f.name in data:
            values[f.name] = _convert(hints[f.name], data[f.name], path, f"{where}{f.name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{path}: missing key {where}{f.name}")
    try:
        return kind(**values)
    except ValueError as error:
        raise ConfigError(f"{path}: {where.rstrip('.') or 'file'}: {error}") from error


def _convert(hint: Any, value: Any, path: Path, where: str) -> Any:
    origin = typing.get_origin(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {where} must be a table, found {value!r}")
        return _build(hint, value, path, f"{where}.")
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{path}: {where} must be a list, found {value!r}")
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, one, path, f"{where}[{n}]") for n, one in enumerate(value))
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise ConfigError(
                f"{path}: {where} is {value!r}, expected one of {', '.join(map(str, typing.get_args(hint)))}"
            )
        return value
    if origin in (types.UnionType, typing.Union):
        inner = next(a for a in typing.get_args(hint) if a is not type(None))
        return _convert(inner, value, path, where)
    if hint is Path and isinstance(value, str):
        return (path.parent / value).resolve()
    if origin is not None and isinstance(value, dict):
        item = typing.get_args(hint)[1]
        return {str(k): _convert(item, v, path, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ConfigError(f"{path}: {where} must be a finite number, found {value!r}")
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{path}: {where} must be {getattr(hint, '__name__', hint)}, found {value!r}")
