"""A configuration as a release: `config.toml`, a part of device.toml that is laid over the device's own when it is loaded.

ALLOWED is all that it may say: how the PLC and the sensors are read, and the times and limits of the loop. Who the device is,
whom it trusts, how it reaches its broker, its cloud and its PLC, what commands may write, and which frames leave it, are the
device's own. Tables are merged key by key; `[[tags]]` and `[[assets]]` by their name, new ones at the end. What comes of it is
checked like any device.toml.

The slot set is `config`. Which release holds is decided once, by the supervisor, for all of its processes ($GUDGEON_CONFIG);
elsewhere it is the confirmed one.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_runtime.errors import BundleError, ConfigError
from edge_runtime.update import slots
from edge_runtime.wire import release
from edge_runtime.wire.manifest import MANIFEST, SIGNATURE
from edge_runtime.wire.release import CONFIG_FILE, ConfigManifest

SLOT_SET = "config"
VARIABLE = "GUDGEON_CONFIG"
LIMIT_BYTES = 256 * 1024
NAMED = ("tags", "assets")
#: section → the keys that may stand there; none: all but DENIED
ALLOWED: Mapping[str, frozenset[str]] = {
    "plc": frozenset({"map", "poll_ms", "pulse_ms"}),
    "control": frozenset({"deadline_ms", "frame_timeout_ms", "heartbeat_ms", "review_max_bytes"}),
    "tags": frozenset(),
    "assets": frozenset(),
}
DENIED: Mapping[str, frozenset[str]] = {"assets": frozenset({"bundles"})}  # a path on the device

Data = Mapping[str, Any]


def read_overlay(path: Path) -> Data:
    """The content of a `config.toml`; ConfigError where it says what it must not."""
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise ConfigError(f"{path}: over the limit of {LIMIT_BYTES} bytes")
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    for section, value in data.items():
        if section not in ALLOWED:
            raise ConfigError(f"{path}: [{section}] is the device's own; a configuration has {', '.join(ALLOWED)}")
        for table in _tables(section, value, path):
            allowed, denied = ALLOWED[section] or table.keys(), DENIED.get(section, frozenset())
            if wrong := sorted((table.keys() - allowed) | (table.keys() & denied)):
                raise ConfigError(f"{path}: {section}.{wrong[0]} is the device's own; it cannot be in a configuration")
    return data


def merge(device: Data, overlay: Data) -> dict[str, Any]:
    """What holds: `overlay` over `device`, both as `tomllib` reads them."""
    merged = dict(device)
    for name, value in overlay.items():
        before = merged.get(name)
        if name in NAMED and isinstance(before, list) and isinstance(value, list):
            merged[name] = _by_name(before, value)
        elif isinstance(before, dict) and isinstance(value, dict):
            merged[name] = merge(before, value)
        else:
            merged[name] = value
    return merged


def overlay_of(state_dir: Path) -> Data:
    """What is laid over device.toml of this process; nothing where no configuration is installed."""
    chosen = os.environ.get(VARIABLE)
    folder = Path(chosen) if chosen else None if chosen == "" else slots.active(state_dir, SLOT_SET)
    return read_overlay(folder / CONFIG_FILE) if folder else {}


def _tables(section: str, value: Any, path: Path) -> list[dict[str, Any]]:
    tables = value if section in NAMED else [value]
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{path}: {section} must be {'a list of tables' if section in NAMED else 'a table'}")
    names = [table.get("name") for table in tables] if section in NAMED else []
    if any(not isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ConfigError(f"{path}: each of [[{section}]] needs a name of its own")
    return tables


def _by_name(before: list[Any], after: list[Any]) -> list[Any]:
    found = {one.get("name", i): one for i, one in enumerate(before) if isinstance(one, dict)}
    for one in after:
        found[one["name"]] = merge(found.get(one["name"], {}), one)
    return list(found.values())


def read_config_release(folder: Path) -> ConfigManifest:
    """The manifest of a configuration's folder, whose file is sound and says nothing that it must not; BundleError or ConfigError
    otherwise."""
    try:
        manifest = release.parse((folder / MANIFEST).read_bytes(), ConfigManifest)
        if {p.name for p in folder.iterdir()} - {SIGNATURE} != {MANIFEST, CONFIG_FILE}:
            raise ValueError(f"expected {MANIFEST} and {CONFIG_FILE} and nothing else")
        if hashlib.sha256((folder / CONFIG_FILE).read_bytes()).hexdigest() != manifest.files[CONFIG_FILE]:
            raise ValueError(f"{CONFIG_FILE} is not the file that the manifest names")
    except (ValueError, OSError) as error:
        raise BundleError(f"configuration {folder}: {error}") from error
    read_overlay(folder / CONFIG_FILE)
    return manifest
