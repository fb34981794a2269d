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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_runtime import datagrams, log
from edge_runtime.boot import boot_id
from edge_runtime.child import child_main, stop_event
from edge_runtime.clock import SystemClock
from edge_runtime.config import DeviceConfig
from edge_runtime.decide import alarm_socket
from edge_runtime.decide.inbox import SOCKET_PATH, hand_over
from edge_runtime.errors import ResourceError
from edge_runtime.exposition import Page
from edge_runtime.identity import device_key
from edge_runtime.link import desired as desired_state
from edge_runtime.link import journal, time_floor
from edge_runtime.link.access import FloorAccess
from edge_runtime.link.cloud_clock import CloudClock
from edge_runtime.link.cloud_key import cloud_key
from edge_runtime.link.commands import CommandDesk
from edge_runtime.link.desired import DesiredState
from edge_runtime.link.metrics import TABLE, Line, Offset, Reader
from edge_runtime.link.rate import LineSettings
from edge_runtime.link.time_floor import TimeFloor
from edge_runtime.link.uns import Newest, encoder
from edge_runtime.link.uplink import Uplink
from edge_runtime.metrics_server import MetricsServer
from edge_runtime.mqtt_access import Access
from edge_runtime.outbox.opening import open_outbox
from edge_runtime.outbox.store import Outbox
from edge_runtime.wire.batch import Ack
from edge_runtime.wire.desired import KEYS, State

NICE = 10
DRAIN_S = 3.0
MAINTAIN_S = 1.0


def hog() -> None:
    """`link.debug_hog`: JSON work without end, to show that it does not reach `control`."""
    data = {str(i): list(range(50)) for i in range(500)}
    while True:
        json.loads(json.dumps(data))


class Carrier(Line, Protocol):
    """What carries the outbox away: `Uplink` to our cloud, or a Sparkplug `Node`."""

    def turn(self) -> None: ...
    def drain(self, timeout_s: float) -> bool: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Link:
    """The parts of this process, put together."""

    carrier: Carrier
    time: CloudClock
    floor: TimeFloor
    desk: CommandDesk

    def turn(self) -> None:
        self.carrier.turn()
        if self.desk.busy:
            self.desk.step()

    def clock_offset(self) -> Offset | None:
        offset_ns, uncertainty_ns = self.time.offset_ns, self.time.uncertainty_ns
        return None if offset_ns is None or uncertainty_ns is None else Offset(offset_ns, uncertainty_ns)

    def close(self) -> None:
        self.carrier.close()
        self.floor.save()


def put_together(device: DeviceConfig, outbox: Outbox, wake: socket.socket) -> Link:
    state_dir, clock = device.device.state_dir, SystemClock()
    floor = TimeFloor(state_dir / time_floor.FILE, clock)
    cloud_time = CloudClock(outbox.append, floor, clock)
    key = cloud_key(state_dir, device.cloud.public_key)
    desk = CommandDesk(
        state_dir / journal.FILE, device.device.id, boot_id(), device.commands, key, outbox, cloud_time.trusted,
        lambda request: hand_over(state_dir / SOCKET_PATH, request), clock,
        lambda request: alarm_socket.hand_over(state_dir / alarm_socket.SOCKET_PATH, request),
    )  # fmt: skip
    access = FloorAccess(device.broker_access, floor)
    if device.link.protocol == "sparkplug":
        return Link(make_node(device, outbox, wake, access, desk), cloud_time, floor, desk)
    uplink = make_uplink(device, outbox, wake, access, cloud_time.take)
    desired = make_desired(device, uplink, key, outbox)
    uplink.listen("desired", desired.receive, desired.report)
    uplink.listen("command", desk.receive)
    return Link(uplink, cloud_time, floor, desk)


def make_uplink(
    device: DeviceConfig, outbox: Outbox, wake: socket.socket, access: Access, on_ack: Callable[[Ack, int], None]
) -> Uplink:
    broker, uns = device.broker, device.link.uns
    newest = None if uns == "off" else Newest(device.place, encoder(uns), outbox.last)
    return Uplink(
        device.place, boot_id(), broker.host, broker.port, outbox, device_key(device.device.state_dir), wake,
        broker.keepalive_s, access=access, on_ack=on_ack, newest=newest,
    )  # fmt: skip


def make_desired(device: DeviceConfig, uplink: Uplink, key: Ed25519PublicKey | None, outbox: Outbox) -> DesiredState:
    def apply(state: State) -> None:
        settings = {name: state.get(name, getattr(device.link, name)) for name in KEYS}
        uplink.reconnect_spread_s = settings.pop("reconnect_spread_s")
        uplink.set_line(LineSettings(**settings))

    return DesiredState(
        device.device.state_dir / desired_state.FILE, device.device.id, key, apply,
        lambda payload: uplink.publish("reported", payload, retain=True), outbox.append,
    )  # fmt: skip


def make_node(device: DeviceConfig, outbox: Outbox, wake: socket.socket, access: Access, desk: CommandDesk) -> Carrier:
    from edge_runtime.link.sparkplug.node import Node
    from edge_runtime.link.sparkplug.payload import DataType

    types = {"bool": DataType.BOOLEAN, "float32": DataType.DOUBLE}
    writable = {name: types.get(point.type, DataType.INT64) for name, point in device.commands.allowed.items()}
    broker = device.broker
    return Node(
        device.sparkplug, device.place, boot_id(), broker.host, broker.port, outbox, desk, device.device.state_dir, wake,
        broker.keepalive_s, access=access, reconnect_spread_s=device.link.reconnect_spread_s, writable=writable,
    )  # fmt: skip


def serve_metrics(device: DeviceConfig, outbox: Outbox, link: Link) -> MetricsServer:
    """A port that cannot be had is told, as an Event too, and stops nothing."""
    section, clock = device.metrics, SystemClock()
    page = Page(TABLE, Reader(device, boot_id(), outbox, link.carrier, clock, link.clock_offset))
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
    wake = datagrams.bound(device.device.state_dir / datagrams.LINK_PATH)
    outbox = open_outbox(device)
    link = put_together(device, outbox, wake)
    metrics = serve_metrics(device, outbox, link)
    stopping = stop_event()
    if device.link.debug_hog:
        threading.Thread(target=hog, name="hog", daemon=True).start()
    due_s = 0.0
    while not stopping.is_set():
        link.turn()
        if time.monotonic() >= due_s:
            outbox.maintain()
            metrics.try_again()
            due_s = time.monotonic() + MAINTAIN_S
    link.carrier.drain(DRAIN_S)
    link.close()
    metrics.stop()
    outbox.close()


if __name__ == "__main__":
    sys.exit(child_main("link", run))
