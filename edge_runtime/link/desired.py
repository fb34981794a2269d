"""Desired state on the device: admitted, kept, applied, reported. `wire.desired` has the table of what may be asked for.

- Only what is signed with the pinned key of the cloud, for this device, with a version above the one that holds.
- The state is on the disk before it holds, so that no older one can come back after a restart.
- One key that is unknown or out of range refuses the whole; what held before goes on, and `reported` says why.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_runtime import log
from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.errors import ResourceError
from edge_runtime.link.cloud_clock import Record, tell
from edge_runtime.link.cloud_key import KEY_PATH, signed_by
from edge_runtime.wire.desired import KIND, Desired, Refusal, Reported, State, check_state, read_desired
from edge_runtime.wire.signed import unseal

FILE = "desired.json"
TOLD_LIMIT = 100
NO_KEY = f"this device has no key of a cloud; put it into {KEY_PATH} or cloud.public_key"


class DesiredState:
    """`apply` is called with the state at the start and at each change. `report` publishes what holds."""

    def __init__(
        self,
        path: Path,
        device: str,
        key: Ed25519PublicKey | None,
        apply: Callable[[State], None],
        report: Callable[[bytes], Any],
        record: Record,
    ) -> None:
        self._path, self._device, self._key = path, device, key
        self._apply, self._report, self._record = apply, report, record
        self.version, self.state = _read(path)
        self._refused: Refusal | None = None
        self._told: set[tuple[int, str]] = set()
        apply(self.state)

    def receive(self, payload: bytes) -> None:
        """One message of leaf `desired`."""
        if not payload:
            return  # somebody took the retained message back: what holds, holds
        self._refused = None
        try:
            self._take(payload)
        except ValueError as error:
            self._refuse(0, str(error))
        self.report()

    def report(self) -> None:
        self._report(Reported(self.version, self.state, self._refused).to_json())

    def _take(self, payload: bytes) -> None:
        message = unseal(payload, "desired state")
        if self._key is None:
            return self._refuse(0, NO_KEY)
        if not signed_by(self._key, KIND, message):
            return self._refuse(0, "the desired state is not signed with the key of this device's cloud")
        wanted = read_desired(message.body)
        if wanted.device != self._device:
            return self._refuse(wanted.version, f"it is for device {wanted.device}")
        if wanted.version < self.version:
            return self._refuse(wanted.version, f"its version is not above {self.version}, which holds")
        return self._admit(wanted) if wanted.version > self.version else None

    def _admit(self, wanted: Desired) -> None:
        try:
            state = check_state(wanted.state)
            replace_file(self._path, json.dumps({"version": wanted.version, "state": state}).encode())
        except (ValueError, ResourceError) as error:
            return self._refuse(wanted.version, str(error))
        self.version, self.state = wanted.version, state
        self._apply(state)
        tell(self._record, "link", "desired_applied", {"version": self.version, "state": state})
        log.say(logging.INFO, "desired state applied", version=self.version, state=state)
        return None

    def _refuse(self, version: int, reason: str) -> None:
        """In `reported` each time; as an Event and in the log once for each reason, and not without end: anybody whom the
        broker lets may write here."""
        self._refused = Refusal(version, reason)
        if (version, reason) not in self._told and len(self._told) < TOLD_LIMIT:
            self._told.add((version, reason))
            tell(self._record, "link", "desired_refused", vars(self._refused))
            log.say(logging.WARNING, "desired state refused", version=version, reason=reason)


def _read(path: Path) -> tuple[int, dict[str, Any]]:
    """What held before the restart. A damaged file is told; the device is then as configured until the cloud speaks."""
    with disk_errors(path):
        if not path.exists():
            return 0, {}
        text = path.read_text(errors="replace")
    try:
        value = json.loads(text)
        version, state = value["version"], value["state"]
        if type(version) is int and version > 0 and isinstance(state, dict):
            return version, check_state(state)
        reason = "not of this format"
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error)
    log.say(logging.WARNING, "the kept desired state cannot be used; it is as if there were none", reason=reason)
    return 0, {}
