"""A node and a host at one broker, and the clock and the desk that the node gets."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_runtime.backoff import Backoff
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.decide import points
from edge_runtime.decide.points import WriteRequest
from edge_runtime.link.cloud_clock import TrustedTime
from edge_runtime.link.commands import CommandDesk
from edge_runtime.link.sparkplug.commands import Commands
from edge_runtime.link.sparkplug.node import Node
from edge_runtime.link.sparkplug.payload import DataType
from edge_runtime.link.sparkplug.settings import SparkplugSection
from edge_runtime.link.sparkplug.tests.host import Host
from edge_runtime.outbox.store import Outbox
from edge_runtime.tests.waiting import until
from edge_runtime.wire.topics import Place

PLACE = Place("acme", "site1", "area1", "line1", "cell1", "dev1")
BOOT = "boot-1"
LINE_SIGN = ("metric", "control", {"answered": 1})


class ShiftedClock(SystemClock):
    """Real time, moved forward by hand, also by hand alone."""

    ahead_ns = 0
    stopped_ns: int | None = None

    def stop(self) -> None:
        self.stopped_ns = super().monotonic_ns()

    def monotonic_ns(self) -> int:
        return self.ahead_ns + (super().monotonic_ns() if self.stopped_ns is None else self.stopped_ns)


def desk(
    outbox: Outbox, folder: Path, allowed: points.Commands, clock: Clock, handed: list[WriteRequest] | None = None
) -> CommandDesk:
    """The real one, of a device that has no key of a cloud and knows the time."""

    def hand_over(request: WriteRequest) -> bool:
        if handed is not None:
            handed.append(request)
        return handed is not None

    return CommandDesk(
        folder / "commands.json",
        "dev1",
        BOOT,
        allowed,
        None,
        outbox,
        lambda: TrustedTime(clock.wall_ns(), 0),
        hand_over,
        clock,
    )


class Pair:
    """A node and a host at one broker. `turn` drives the node until something is so."""

    def __init__(self, broker: int, folder: Path, **section: Any) -> None:
        self.broker, self.folder = broker, folder
        self.clock = ShiftedClock()
        self.outbox = Outbox(folder / "outbox.db", "dev1", BOOT, self.clock)
        self.section = SparkplugSection(**{"confirm_after_s": 0.0, "primary_host": "scada", **section})
        self.host = Host(broker)
        self.node = self.new_node()

    def new_node(self, commands: Commands | None = None, writable: Mapping[str, DataType] | None = None) -> Node:
        commands = commands or desk(self.outbox, self.folder, points.Commands(), self.clock)
        quick = Backoff(0.01, 0.05)
        return Node(
            self.section, PLACE, BOOT, "127.0.0.1", self.broker, self.outbox, commands, self.folder,
            clock=self.clock, backoff=quick, writable=writable,
        )  # fmt: skip

    def turn(self, done: Callable[[], Any]) -> None:
        until(done, self.node.turn, lambda: (self.node.state, self.host.kinds()[-20:], self.host.breaches[:5]))

    def empty(self) -> None:
        """Until everything is acknowledged, and the host has read what the broker had for it."""
        self.turn(lambda: self.outbox.depth() == 0)
        self.host.catch_up()

    def cut(self) -> None:
        """The node's connection breaks, unannounced."""
        client = self.node._client
        assert client is not None
        sock = client.socket()
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        self.node.close()
        self.host.stop()
        self.outbox.close()
        assert self.host.breaches == []
