"""`gudgeon cloud` signs snapshot and timestamp anew by itself, says what of the offline metadata is about to expire, and makes
the deltas of what was published, in a process of its own behind everything else."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cloud.registry import deltas
from cloud.registry.folder import Registry
from cloud.registry.publishing import renew, utc_now
from cloud.registry.status import status
from edge_runtime import log
from edge_runtime.errors import GudgeonError

LOOK_EVERY_S = 600.0
DELTAS = ("nice", "-n", "19", sys.executable, "-m", "edge_runtime.cli", "repo", "deltas")


class Renewer:
    """A thread that looks at once and then every ten minutes. What fails is told, and tried again."""

    def __init__(self, folder: Path, now: Callable[[], datetime] = utc_now) -> None:
        self._registry, self._now = Registry(folder), now
        self._registry.check()
        self._told: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="registry", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(2.0)

    def step(self) -> list[str]:
        """The roles that were signed anew."""
        renewed = renew(self._registry, self._now())
        warnings: list[str] = status(self._registry, self._now())["warnings"]
        for text in warnings:
            if text not in self._told:
                log.say(logging.WARNING, f"registry: {text}")
        self._told = warnings
        return renewed

    def _run(self) -> None:
        while True:
            try:
                for role in self.step():
                    log.say(logging.INFO, "registry: signed anew", role=role)
            except (GudgeonError, OSError, ValueError) as error:
                log.say(logging.ERROR, "the registry's online metadata were not signed anew", reason=str(error))
            self._make_deltas()
            if self._stopping.wait(LOOK_EVERY_S):
                return

    def _make_deltas(self) -> None:
        """`gudgeon repo deltas`; it ends with this cloud, and begins again where it was."""
        try:
            if not deltas.missing(self._registry):
                return
            with subprocess.Popen([*DELTAS, str(self._registry.folder)], stdout=subprocess.DEVNULL) as process:
                while process.poll() is None:
                    if self._stopping.wait(0.2):
                        process.terminate()
        except (GudgeonError, OSError, ValueError) as error:
            log.say(logging.WARNING, "no deltas were made; devices fetch whole artifacts", reason=str(error))
