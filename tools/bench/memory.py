"""Resident memory of a real `control` process at work, and of the floor: NumPy, the engine and the model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from edge_runtime.errors import GudgeonError
from edge_runtime.tasks import ENVIRONMENT
from edge_runtime.update import install
from tools.demo import files, processes
from tools.demo.files import Plan, Workplace

PARTS = 60

FLOOR = """
import sys
import numpy as np
engine, path, shape = sys.argv[1], sys.argv[2], tuple(map(int, sys.argv[3].split(",")))
x = np.zeros(shape, np.float32)
if engine == "litert":
    from ai_edge_litert.interpreter import Interpreter
    model = Interpreter(path, num_threads=1)
    model.allocate_tensors()
    for _ in range(20):
        model.invoke()
else:
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    model = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for _ in range(20):
        model.run(None, {model.get_inputs()[0].name: x})
print(next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmRSS")))
"""


def rss_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS"))


def floor_rss_bytes(bundle_dir: Path, variant: str) -> int:
    from edge_runtime.infer import bundle as bundles

    bundle = bundles.load(bundle_dir)
    v, i = bundle.variant(variant), bundle.manifest.input
    shape = f"1,{i.channels},{i.height},{i.width}"
    command = [sys.executable, "-c", FLOOR, v.engine, str(bundle.path / v.file), shape]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def control_rss_bytes(bundle_dir: Path, engine: str) -> tuple[int, str]:
    """(RSS after some parts on a simulated line, the variant that ran)."""
    with tempfile.TemporaryDirectory() as folder:
        work, plan = Workplace(Path(folder)), Plan(PARTS, 20.0, bundle_dir, engine=engine)
        ready = work / "line.ready"
        args = ["line", "--config", str(files.line_toml(work, plan)), "--ready-file", str(ready), "--wait-for-device"]
        args += ["--parts", str(PARTS), "--parts-per-s", "20"]
        line = processes.start("line", "sim", args, work / "log")
        control = None
        try:
            ports = processes.wait_ready(line, ready)
            config = files.device_toml(work, plan, ports, {"broker_port": 1})
            installed = install.install(bundle_dir, work / "state", engine=engine)
            control = subprocess.Popen(
                [sys.executable, "-m", "edge_runtime.control_process", "--config", str(config)],
                stderr=subprocess.DEVNULL,
                env={**os.environ, **ENVIRONMENT},
            )
            _wait_done(ports["stats_port"])
            variant = next(iter(json.loads((work / "state/engines.json").read_text()).values()))["variant"]
            assert installed.digest
            return rss_bytes(control.pid), str(variant)
        finally:
            if control is not None:
                control.terminate()
                control.wait()
            line.stop()


def _wait_done(stats_port: int, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if httpx.get(f"http://127.0.0.1:{stats_port}/stats", timeout=5.0).json().get("done"):
            return
        time.sleep(0.1)
    raise GudgeonError(f"the simulated line was not done after {timeout_s:.0f} s")
