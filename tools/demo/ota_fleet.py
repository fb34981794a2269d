"""The devices of `gudgeon demo ota`: their folders, how they are enrolled, and what the cameras of the emulated ones see."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from edge_runtime.config import load_device
from edge_runtime.errors import GudgeonError
from edge_runtime.identity.enroll_cli import enroll
from edge_runtime.infer import bundle as bundles
from edge_runtime.update.install import install
from edge_runtime.wire.enrolment import read_token
from tools.demo import files, ota_models
from tools.demo.files import Plan, Workplace

LINE = "line-01"
DEVICES = 20
PICTURES = 240
EVENING_SHARE = 4  # one part in so many has a bright spot in the evening
TRIAL = {"parts": 40, "most_parts": 200, "soak_s": 2.0}
#: the emulated devices share one machine, which is no board of theirs: how slow a model is there is judged against another alone
SHARED = {"deadline_ms": 1000.0, "frame_timeout_ms": 750.0}


@dataclass(frozen=True)
class Ports:
    line: dict[str, int]
    cloud: dict[str, int]


class Fleet:
    """The folders of the devices, and how they are enrolled."""

    def __init__(self, work: Workplace, models: Path, plan: Plan) -> None:
        self._work, self._models, self._plan = work, models, plan
        self.names = [LINE, *(f"device-{n:02d}" for n in range(2, DEVICES + 1))]

    def configure(self, ports: Ports) -> dict[str, Path]:
        """device → its `device.toml`; all start with the cautious model, confirmed."""
        configs = {}
        for name in self.names:
            folder = Workplace(self._work / name)
            data = tomllib.loads(files.device_toml(folder, self._plan, ports.line, ports.cloud).read_text())
            data["device"]["id"] = name
            del data["bundle"]["path"]
            data["identity"] = {"hardware_id": f"demo-{name}"}
            data["update"] = {"url": f"https://127.0.0.1:{ports.cloud['devices_port']}", "poll_s": 2.0}
            data["trial"] = TRIAL if name == LINE else {**TRIAL, "slow_ratio": 3.0}
            data["control"] = data["control"] if name == LINE else SHARED
            data["metrics"] = {"port": 0}
            configs[name] = folder.write("device.toml", data)
        first = self._work / LINE / "state"
        install(self._models / "cautious", first)
        for name in self.names[1:]:
            shutil.copytree(first, self._work / name / "state", dirs_exist_ok=True)
        return configs

    def enrol(self, configs: Mapping[str, Path], root: Path, token_for: Callable[[str, str], str]) -> None:
        for name, config in configs.items():
            device = load_device(config)
            hardware = device.identity.hardware_id
            enroll(device, device.update.url, read_token(token_for(name, hardware)), hardware, None, False)
            trust = device.device.state_dir / "trust"
            trust.mkdir(exist_ok=True)
            shutil.copyfile(root, trust / "root.json")


def pictures(work: Workplace, bundle: Path, seed: int) -> None:
    """`frames/day` without bright spots, `frames/evening` with some."""
    rendered = work / "rendered"
    run_gudgeon("sim", "images", "--out", str(rendered), "--n", str(PICTURES), "--seed", str(seed))
    spec = bundles.load(bundle).manifest.input
    seen: dict[bool, list[Path]] = {True: [], False: []}
    for file in sorted(rendered.rglob("*.png")):
        pixels = np.asarray(Image.open(file).convert("L"))
        seen[ota_models.brightest(pixels, spec) >= ota_models.BRIGHT].append(file)
    evening = seen[True] + seen[False][: (EVENING_SHARE - 1) * len(seen[True])]
    for name, chosen in (("day", seen[False]), ("evening", evening)):
        folder = work / f"frames/{name}"
        folder.mkdir(parents=True)
        for number, file in enumerate(chosen):
            shutil.copyfile(file, folder / f"{number:04d}.png")


def run_gudgeon(*args: str) -> None:
    """One command to its end; GudgeonError with its last line."""
    done = subprocess.run(
        [sys.executable, "-m", "edge_runtime.cli", *args], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise GudgeonError(f"gudgeon {' '.join(args[:2])}: {lines[-1]}")
