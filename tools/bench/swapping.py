"""A simulated line with a device on it, on which models are swapped, and what its PLC saw of it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w

from edge_runtime.decide.swap_socket import SOCKET_PATH
from edge_runtime.decide.trial_settings import TrialSection
from edge_runtime.errors import EndpointError, GudgeonError
from edge_runtime.update import slots
from edge_runtime.update.gate import Candidate, Verdict
from edge_runtime.update.trial.line_gate import LineGate
from edge_runtime.wire import manifest as wire
from tools.bench import faulty
from tools.demo import files, processes
from tools.demo.files import Plan, Workplace

READY_S = 60.0
LOOK_S = 0.05
PARTS = 1_000_000  # more than a run ever sees
SETTLED_S = 1.0  # the gate of the simulated line comes 0.3 s after the inspection


def variant(bundle: Path, folder: Path, version: str, **training: Any) -> Path:
    """A copy of a bundle with another version, so another digest, which may ask for a fault."""
    shutil.copytree(bundle, folder)
    (folder / wire.SIGNATURE).unlink(missing_ok=True)
    manifest = tomllib.loads((folder / wire.MANIFEST).read_text())
    manifest["version"] = version
    manifest["training"] = {**manifest.get("training", {}), **training}
    (folder / wire.MANIFEST).write_text(tomli_w.dumps(manifest))
    return folder


def candidate_of(folder: Path) -> Candidate:
    digest = wire.digest((folder / wire.MANIFEST).read_bytes())
    return Candidate("default", folder, digest, digest)


class SwapLine:
    """`gate` is the updater's, with what is installed as what is confirmed."""

    def __init__(
        self, folder: Path, bundle: Path, parts_per_s: float, section: TrialSection, deadline_ms: float
    ) -> None:
        self._work = Workplace(folder)
        self._plan = Plan(PARTS, parts_per_s, bundle, deadline_ms=deadline_ms, frame_timeout_ms=0.75 * deadline_ms)
        self._section, self._deadline_ms = section, deadline_ms
        self._running: list[processes.Running] = []
        self.state_dir, self.fault_file = folder / "state", folder / "fault"
        self.confirmed: Path | None = None
        self.gate = LineGate(self.state_dir, "auto", deadline_ms, section, lambda _: self.confirmed, faulty.JUDGE)

    def start(self) -> None:
        work, plan = self._work, self._plan
        args = ["line", "--config", str(files.line_toml(work, plan)), "--ready-file", str(work / "line.ready")]
        args += ["--parts", str(plan.parts), "--parts-per-s", str(plan.parts_per_s), "--wait-for-device"]
        line = processes.start("line", "sim", [*args, "--log", str(work / "parts.jsonl")], work / "log")
        self._running.append(line)
        ports = processes.wait_ready(line, work / "line.ready", READY_S)
        config = files.device_toml(work, plan, ports, {"broker_port": 1})
        written = tomllib.loads(config.read_text())
        written["trial"] = dict(vars(self._section))
        work.write(config.name, written)
        os.environ[faulty.FAULT_FILE] = str(self.fault_file)
        self._running.append(
            processes.start_module("device", "tools.bench.faulty", ["--config", str(config)], work / "log")
        )
        self.wait("the first parts", lambda: len(self.parts()) > 5)
        self.confirmed = slots.active(self.state_dir)

    def stop(self) -> None:
        for running in reversed(self._running):
            running.stop()

    def check_alive(self) -> None:
        for running in self._running:
            running.check()

    def wait(self, what: str, done: Callable[[], Any], timeout_s: float = READY_S) -> Any:
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            self.check_alive()
            if value := done():
                return value
            time.sleep(LOOK_S)
        raise GudgeonError(f"{what}: not within {timeout_s:.0f} s")

    def rest(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.check_alive()
            time.sleep(LOOK_S)

    def check(self, candidate: Candidate) -> Verdict:
        return self.gate.check(candidate)

    def trial(self, candidate: Candidate, timeout_s: float = 120.0) -> Verdict:
        """As the updater does it, until there is a verdict."""

        def asked() -> Verdict | None:
            try:
                return self.gate.trial(candidate)
            except EndpointError:
                return None  # control is being followed by its spare

        verdict: Verdict = self.wait("the verdict of the trial", asked, timeout_s)
        return verdict

    # ── what was seen ───────────────────────────────────────────────────────────────────────────────────────────────

    def parts(self) -> list[dict[str, Any]]:
        """The PLC's own records, of parts that have met the gate; a line that is being written is left out."""
        path = self._work / "parts.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def events(self, stream: str) -> list[dict[str, Any]]:
        outbox = sqlite3.connect(self.state_dir / "outbox.db")
        rows = outbox.execute(f"SELECT data FROM event_{stream} ORDER BY seq").fetchall()  # noqa: S608
        outbox.close()
        return [json.loads(data) for (data,) in rows]

    def known_ns(self, after_ns: int) -> int | None:
        """When it was known that a model on trial is bad: the supervisor's word that a spare follows, or the Event."""
        for line in (self._work / "log/device.log").read_text().splitlines():
            if '"the spare is control now"' in line:
                found_ns = int(float(json.loads(line)["ts"]) * 1e9)
                if found_ns >= after_ns:
                    return found_ns
        told = [
            e["wall_ns"] for e in self.events("fault") if e["kind"] == "model_rolled_back" and e["wall_ns"] >= after_ns
        ]
        return int(told[0]) if told else None

    @property
    def socket(self) -> Path:
        return self.state_dir / SOCKET_PATH
