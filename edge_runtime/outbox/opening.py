"""The outbox of a configured device, as every process of it opens it."""

from __future__ import annotations

from edge_runtime.boot import boot_id
from edge_runtime.config import DeviceConfig
from edge_runtime.outbox.store import Outbox


def open_outbox(device: DeviceConfig) -> Outbox:
    path = device.device.state_dir / "outbox.db"
    return Outbox(path, device.device.id, boot_id(), None, device.storage, device.control.review_max_bytes)
