"""With which configuration a device is started: the supervisor asks once, at its start, for all of its processes.

A configuration on trial has a try spent, on the disk, before it is started with; with none left it is rolled back here. So one
that stops the device from ever starting takes itself back, without the updater. What cannot be written down is not tried.
"""

from __future__ import annotations

from pathlib import Path

from edge_runtime.errors import BundleError, ConfigError, ResourceError
from edge_runtime.update import records, slots, states
from edge_runtime.update.config_bundle import SLOT_SET
from edge_runtime.update.lock import writing
from edge_runtime.update.store import Store
from edge_runtime.wire.update_status import UpdateState


def begin(state_dir: Path, now_ns: int) -> Path | None:
    """The folder of the configuration to start with; None: device.toml alone."""
    try:
        record = records.read(state_dir, SLOT_SET).record
        if record.state is UpdateState.TRIAL and record.job is not None:
            try:
                with writing(state_dir):
                    if (tried := _try(state_dir, record, now_ns)) is not None:
                        return tried
            except ResourceError:
                pass
        return slots.active(state_dir, SLOT_SET)
    except BundleError as error:
        raise ConfigError(
            f"{error}; to start without it, move {records.folder_of(state_dir, SLOT_SET)} away"
        ) from error


def _try(state_dir: Path, record: records.SlotRecord, now_ns: int) -> Path | None:
    assert record.job is not None
    store, sha256 = Store(state_dir), record.job.release.sha256
    why = store.problem(sha256) or ("" if states.allowed(record, states.Input.TRY) else "its tries are used up")
    after = states.roll_back(record, why, None, now_ns) if why else states.try_once(record, now_ns)
    records.write(state_dir, SLOT_SET, after)
    return None if why else store.path(sha256)
