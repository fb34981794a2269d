"""AssetGate: the health gate of a bundle that `monitor` runs (slot sets ``asset-<name>-anomaly`` and ``…-rul``).

`check` runs the golden vectors on this board in a process of its own, so that a candidate that crashes or hangs hurts nobody,
and times them. On trial `monitor` runs it (`decide.monitor` looks at the slots every 15 s) and says so in
`run/models.json`; it is fit when that has lasted for `SOAK_S` and `monitor` has not ended meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_runtime.child import end_with_parent
from edge_runtime.errors import EndpointError
from edge_runtime.processes import processes
from edge_runtime.tasks import ENVIRONMENT
from edge_runtime.update.gate import Candidate, Verdict

MODELS_FILE = Path("run") / "models.json"
CHECK_S = 600.0
SOAK_S = 30.0
TAKEN_S = 120.0


class AssetGate:
    def __init__(self, state_dir: Path, engine: str, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._state_dir, self._engine, self._now_s = state_dir, engine, monotonic_s
        self._trial: tuple[str, float, int] | None = None  # hash, since when, restarts of monitor
        self._taken_s: float | None = None

    def check(self, candidate: Candidate) -> Verdict:
        command = [sys.executable, "-m", "edge_runtime.update.asset_check", str(candidate.path), self._engine]
        try:
            done = subprocess.run(
                [*command, str(self._state_dir / "engines.json")],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=CHECK_S,
                check=False,
                env={**os.environ, **ENVIRONMENT},
                preexec_fn=end_with_parent,
            )
        except subprocess.TimeoutExpired:
            return Verdict(False, f"its golden vectors were not done within {CHECK_S:.0f} s")
        try:
            value: Any = json.loads(done.stdout.strip().splitlines()[-1])
            return Verdict(bool(value["ok"]), str(value["reason"]), {k: float(v) for k, v in value["measured"].items()})
        except (IndexError, ValueError, KeyError, TypeError, AttributeError):
            return Verdict(False, f"its golden vectors ended the process (exit code {done.returncode})")

    def begin(self, candidate: Candidate) -> None:
        self._trial = candidate.sha256, self._now_s(), self._restarts()
        self._taken_s = None

    def trial(self, candidate: Candidate) -> Verdict | None:
        if self._trial is None or self._trial[0] != candidate.sha256:
            self.begin(candidate)
        assert self._trial is not None
        _, since_s, restarts = self._trial
        if self._restarts() > restarts:
            return Verdict(False, "monitor ended while it ran this bundle")
        digest, refused = self._runs(candidate.slot_set)
        if digest == candidate.digest and refused:
            return Verdict(False, refused)
        if digest != candidate.digest:
            self._taken_s = None
            if self._now_s() - since_s > TAKEN_S:
                raise EndpointError(
                    f"monitor has not taken {candidate.digest[:12]} within {TAKEN_S:.0f} s; does it run?"
                )
            return None
        self._taken_s = self._now_s() if self._taken_s is None else self._taken_s
        lasted_s = self._now_s() - self._taken_s
        return Verdict(True, "", {"soak_s": lasted_s}) if lasted_s >= SOAK_S else None

    def revert(self, to: Candidate | None) -> None:
        """`monitor` takes what is confirmed when it looks next."""
        self._trial = self._taken_s = None

    def _restarts(self) -> int:
        found = processes(self._state_dir).get("monitor")
        return found.restarts if found else 0

    def _runs(self, slot_set: str) -> tuple[str, str]:
        """The digest that `monitor` has taken or refused last, and why it was refused."""
        try:
            value = json.loads((self._state_dir / MODELS_FILE).read_text())[slot_set]
            return str(value["digest"]), str(value["refused"])
        except (OSError, ValueError, KeyError, TypeError):
            return "", ""
