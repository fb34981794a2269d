"""One simulated minute of the control loop with the bare `edge` extra: 600 parts on a clock that only this script moves.

Imports every module of the device package, installs the bundle named on the command line as a device would, and runs PLC
and camera in memory. Ends with 0 only where every part was answered and recorded, once, and nothing foreign was imported.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import edge_runtime
from edge_runtime.clock import FakeClock
from edge_runtime.config import PlcMap
from edge_runtime.decide.loop import Loop, Settings
from edge_runtime.decide.models import Models
from edge_runtime.field.camera_memory import MemoryCamera
from edge_runtime.field.handshake import handshake
from edge_runtime.field.memory import MemoryDriver
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer.model import load_model
from edge_runtime.outbox.recorder import Recorder
from edge_runtime.outbox.store import Outbox
from edge_runtime.update.install import install

PARTS, PERIOD_S = 600, 0.1
DENIED = {"torch", "tensorflow", "fastapi", "pydantic", "opacus", "onnx", "flwr", "asyncua", "tests"}


def import_everything() -> None:
    for found in pkgutil.walk_packages(edge_runtime.__path__, "edge_runtime."):
        if ".tests" not in found.name and not found.name.endswith((".conftest", "_pb2")):
            importlib.import_module(found.name)
    denied = DENIED & {name.split(".")[0] for name in sys.modules}
    assert not denied, f"the device package imports {denied}"


def minute(bundle_dir: Path, state_dir: Path) -> None:
    installed = install(bundle_dir, state_dir)
    model = load_model(installed.path, state_dir / "engines.json")
    golden = bundles.load(installed.path).golden.frames
    rng = np.random.default_rng(0)
    tags, clock = handshake(PlcMap()), FakeClock()
    plc = MemoryDriver({t.name: 0 for t in (*tags.inputs, *tags.results)}, clock)
    plc.values["line_state"] = 6

    def noisy(trigger: int) -> NDArray[np.uint8]:
        frame = golden[trigger % len(golden)]
        return np.asarray(np.clip(frame.astype(np.int16) + rng.integers(-1, 2, frame.shape), 0, 255), np.uint8)

    outbox = Outbox(state_dir / "outbox.db", "smoke", "smoke", clock)
    loop = Loop(Settings(), tags, plc, MemoryCamera(noisy), Models(model, {}), Recorder(outbox), clock)
    results = []
    for seq in range(1, PARTS + 1):
        plc.values["part_seq"] = seq
        until_ns = clock.monotonic_ns() + round(PERIOD_S * 1e9)
        while clock.monotonic_ns() < until_ns:
            clock.advance(max(loop.step(), 0.001))
        assert plc.values["result_seq"] == seq, f"part {seq} was not answered"
        results.append(int(plc.values["result"]))
    loop.stop()
    assert outbox.head("decision") == PARTS, f"{outbox.head('decision')} Decisions of {PARTS} parts"
    assert len(set(results)) > 1, "every part got the same answer"
    names = {1: "pass", 2: "reject", 3: "review", 4: "fault"}
    told = ", ".join(f"{results.count(code)} {name}" for code, name in names.items())
    print(f"one simulated minute: {PARTS} parts, {told}; engine {model.engine.name} {model.engine.variant}")


if __name__ == "__main__":
    import_everything()
    with tempfile.TemporaryDirectory() as folder:
        minute(Path(sys.argv[1]), Path(folder))
