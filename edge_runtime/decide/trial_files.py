"""Files of a trial in the folder `run`, written by `control`:

    trial.json    which model is on trial. Found at a start of the same boot: `control` did not come through that trial
    spare.want    the supervisor is to keep a spare ready: a second `control` with what is confirmed, loaded and warm, that waits
    spare.ready   written by the spare

They are for the case that `control` itself dies with the model on trial, so that the spare answers at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_runtime.errors import ResourceError

TRIAL, WANT, READY = "trial.json", "spare.want", "spare.ready"
SPARE_S = 60.0
LOOK_S = 0.05


class TrialFiles:
    def __init__(self, run: Path, boot_id: str) -> None:
        self._run, self._boot_id = run, boot_id

    def ask_for_spare(self, timeout_s: float = SPARE_S) -> None:
        """Wait until it is ready; ResourceError where none comes."""
        (self._run / WANT).touch()
        end_s = time.monotonic() + timeout_s
        while not (self._run / READY).exists():
            if time.monotonic() > end_s:
                (self._run / WANT).unlink(missing_ok=True)
                raise ResourceError(
                    f"no spare process within {timeout_s:.0f} s, so a model that takes control down could not be answered "
                    "for; is `gudgeon run` up?"
                )
            time.sleep(LOOK_S)

    def begin(self, what: Mapping[str, Any]) -> None:
        (self._run / TRIAL).write_text(json.dumps({**what, "boot_id": self._boot_id}))

    def end(self) -> None:
        for name in (TRIAL, WANT):
            (self._run / name).unlink(missing_ok=True)

    def left_over(self) -> Mapping[str, Any] | None:
        """What was on trial when the last `control` of this boot ended, once; None where nothing was."""
        try:
            found = json.loads((self._run / TRIAL).read_text())
        except (OSError, ValueError):
            found = None
        self.end()
        same_boot = isinstance(found, dict) and found.pop("boot_id", "") == self._boot_id
        return found if same_boot else None
