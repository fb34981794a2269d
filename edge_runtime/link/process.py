"""The process `link`: the outbox to the broker. It has no actuator, no camera and no engine, and runs below `control`.

Started by the supervisor as ``python -m edge_runtime.link.process --config device.toml``.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
from pathlib import Path

from edge_runtime import log
from edge_runtime.boot import boot_id
from edge_runtime.child import child_main, stop_event
from edge_runtime.clock import SystemClock
from edge_runtime.config import DeviceConfig
from edge_runtime.durable import disk_errors
from edge_runtime.errors import ResourceError
from edge_runtime.exposition import Page
from edge_runtime.identity import device_key
from edge_runtime.link.metrics import TABLE, Reader
from edge_runtime.link.uplink import Uplink
from edge_runtime.metrics_server import MetricsServer
from edge_runtime.mqtt_access import Access
from edge_runtime.outbox.opening import open_outbox
from edge_runtime.outbox.store import Outbox

NICE = 10
DRAIN_S = 3.0
MAINTAIN_S = 1.0
POKE_PATH = Path("run") / "link.sock"


def wake_socket(path: Path) -> socket.socket:
    """The local datagram socket on which `control` pokes; readable by this user only."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(str(path))
        path.chmod(0o600)
    sock.setblocking(False)
    return sock


def hog() -> None:
    """`link.debug_hog`: JSON work without end, to show that it does not reach `control`."""
    data = {str(i): list(range(50)) for i in range(500)}
    while True:
        json.loads(json.dumps(data))


def serve_metrics(device: DeviceConfig, outbox: Outbox, uplink: Uplink) -> MetricsServer:
    """A port that cannot be had is told, as an Event too, and stops nothing."""
    section, clock = device.metrics, SystemClock()
    page = Page(TABLE, Reader(device, boot_id(), outbox, uplink, clock))
    server = MetricsServer(section.host, (section.port,) if section.port else (), page, clock)
    reason = server.try_start()
    if reason:
        log.say(logging.WARNING, "metrics are not served; set metrics.port to another port, or to 0", reason=reason)
        try:
            outbox.append("link", "metrics_not_served", {"reason": reason})
        except ResourceError as error:
            log.say(logging.WARNING, "not recorded", reason=str(error))
    return server


def run(device: DeviceConfig) -> None:
    os.nice(NICE)
    state_dir = device.device.state_dir
    wake = wake_socket(state_dir / POKE_PATH)
    outbox = open_outbox(device)
    broker, key = device.broker, device_key(state_dir)
    access = Access(broker)
    uplink = Uplink(
        device.place, boot_id(), broker.host, broker.port, outbox, key, wake, broker.keepalive_s, access=access
    )
    metrics = serve_metrics(device, outbox, uplink)
    stopping = stop_event()
    if device.link.debug_hog:
        threading.Thread(target=hog, name="hog", daemon=True).start()
    due_s = 0.0
    while not stopping.is_set():
        uplink.turn()
        if time.monotonic() >= due_s:
            outbox.maintain()
            metrics.try_again()
            due_s = time.monotonic() + MAINTAIN_S
    uplink.drain(DRAIN_S)
    uplink.close()
    metrics.stop()
    outbox.close()


if __name__ == "__main__":
    sys.exit(child_main("link", run))
