"""The three configuration files of a demo, written as a user would write them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w


@dataclass(frozen=True)
class Plan:
    """What the command line asked for. `parts` 0: until stopped."""

    parts: int
    parts_per_s: float
    bundle: Path
    images: Path | None = None
    seed: int = 0
    http_port: int = 0
    kills: int = 0
    hog: bool = False
    protocol: str = "modbus"
    pulse_ms: int = 40
    engine: str = "auto"
    deadline_ms: float = 20.0
    frame_timeout_ms: float = 15.0


class Workplace:
    """The folder of one demo."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("log", "state"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, data: dict[str, Any]) -> Path:
        path = self.folder / name
        path.write_text(tomli_w.dumps(data))
        return path

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def line_toml(work: Workplace, plan: Plan) -> Path:
    return work.write("line.toml", {name: {"port": 0} for name in ("modbus", "opcua", "camera", "stats")})


def cloud_toml(work: Workplace, plan: Plan, stats_port: int) -> Path:
    data = {
        "http": {"port": plan.http_port},
        "broker": {"embedded": True, "port": 0},
        "store": {"url": "sqlite:///cloud.db"},
        "simulator": {"stats_url": f"http://127.0.0.1:{stats_port}/stats"},
    }
    return work.write("cloud.toml", data)


def device_toml(work: Workplace, plan: Plan, line: dict[str, int], cloud: dict[str, int]) -> Path:
    plc_port = line["modbus_port" if plan.protocol == "modbus" else "opcua_port"]
    data = {
        "device": {"id": "demo-01", "state_dir": "state"},
        "plc": {
            "protocol": plan.protocol,
            "port": plc_port,
            "pulse_ms": plan.pulse_ms,
            "map": {"recipe": 5, "lot": 6, "serial": 8},
        },
        "camera": {"driver": "socket", "port": line["camera_port"]},
        "bundle": {"path": str(plan.bundle.resolve()), "engine": plan.engine},
        "control": {"deadline_ms": plan.deadline_ms, "frame_timeout_ms": plan.frame_timeout_ms},
        "broker": {"port": cloud["broker_port"]},
        "link": {"debug_hog": plan.hog},
    }
    return work.write("device.toml", data)
