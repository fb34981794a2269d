"""Which health gate a slot set has: one table, by the name of the set. A set that this device does not have has none."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge_runtime.config import DeviceConfig
from edge_runtime.errors import BundleError
from edge_runtime.update import slots
from edge_runtime.update.asset_gate import AssetGate
from edge_runtime.update.gate import Gate
from edge_runtime.update.runtime_gate import config_gate, runtime_gate
from edge_runtime.update.trial.line_gate import LineGate

#: device, its configuration file, slot set → its gate; None: this device has no such set
Make = Callable[[DeviceConfig, Path, str], Gate | None]


def _asset(device: DeviceConfig, config_path: Path, slot_set: str) -> Gate | None:
    known = {asset.slot_set(kind) for asset in device.assets for kind in ("anomaly", "rul")}
    return AssetGate(device.device.state_dir, device.bundle.engine) if slot_set in known else None


def _line(device: DeviceConfig, config_path: Path, slot_set: str) -> Gate | None:
    recipes = {f"recipe-{code}" for code in device.bundle.recipes}
    if not device.has_line or slot_set not in {"default", *recipes}:
        return None
    state_dir = device.device.state_dir
    deadline_ms, engine = device.control.deadline_ms, device.bundle.engine
    return LineGate(state_dir, engine, deadline_ms, device.trial, partial(_confirmed, state_dir))


def _confirmed(state_dir: Path, slot_set: str) -> Path | None:
    try:
        return slots.active(state_dir, slot_set)
    except BundleError:
        return None  # safe mode: nothing runs to compare with


TABLE: tuple[tuple[re.Pattern[str], Make], ...] = (
    (re.compile(r"default|recipe-.*"), _line),
    (re.compile(r"asset-.*-(anomaly|rul)"), _asset),
    (re.compile(r"runtime"), lambda device, config_path, slot_set: runtime_gate(device, config_path)),
    (re.compile(r"config"), lambda device, config_path, slot_set: config_gate(device, config_path)),
)


class Gates:
    """Each gate is made once: it remembers the trial that it watches."""

    def __init__(self, device: DeviceConfig, config_path: Path) -> None:
        self._device, self._config_path = device, config_path
        self._made: dict[str, Gate | None] = {}

    def __call__(self, slot_set: str) -> Gate | None:
        if slot_set not in self._made:
            make = next((make for pattern, make in TABLE if pattern.fullmatch(slot_set)), None)
            self._made[slot_set] = make(self._device, self._config_path, slot_set) if make else None
        return self._made[slot_set]
