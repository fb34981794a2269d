"""A process full of emulated devices, in one loop: what is ready, what is due, and nothing in between.

Started as ``python -m tools.fleet.worker --first N --count N …``; ends on SIGTERM, every device with its goodbye.

- `ledger.jsonl`: one line for each record that an outbox took, written after it was taken.
- `connections.jsonl`: when each device's connection came and went.
- `ready` is made when all devices are there; `begin` is waited for.
- `state.json`: how many are connected, how many have something that waits, and how late this loop came to a device that was
  due: an overloaded machine makes a fleet clump that would not. Renamed into place twice a second.
"""

from __future__ import annotations

import argparse
import heapq
import json
import resource
import select
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from edge_runtime import log
from edge_runtime.child import end_with_parent, stop_event
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.errors import GudgeonError, ResourceError
from tools.chaos.producer import LedgerFile
from tools.fleet.device import Device, Plan

READY, BEGIN, STATE, LEDGER, CONNECTIONS = "ready", "begin", "state.json", "ledger.jsonl", "connections.jsonl"
STATE_EVERY_NS = 500_000_000
WAIT_S = 0.1
FILES_EACH = 6
FILES_SPARE = 100


class Loop:
    """Devices by file descriptor and by when they are due. A device appears in `_heap` once for each time that it was
    given; only the newest counts."""

    def __init__(self, devices: Sequence[Device], clock: Clock, connections: IO[str], state: Path) -> None:
        self._devices, self._clock, self._connections, self._state = devices, clock, connections, state
        self._epoll = select.epoll()
        self._watched: dict[int, int] = {}  # file descriptor → index
        self._fds: list[int | None] = [None] * len(devices)
        self._up = [False] * len(devices)
        self._heap = [(device.due_ns, i) for i, device in enumerate(devices)]
        self._due = [device.due_ns for device in devices]
        heapq.heapify(self._heap)
        self._state_ns = 0
        self._late_ns: list[int] = []

    def run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            for fd, mask in self._epoll.poll(self._wait_s()):
                index = self._watched.get(fd)
                if index is not None:
                    self._devices[index].exchange(bool(mask & ~select.EPOLLOUT), bool(mask & select.EPOLLOUT))
                    self._after(index)
            self._call_due()
            self._tell()

    def _wait_s(self) -> float:
        return max(0.0, min(WAIT_S, (self._heap[0][0] - self._clock.monotonic_ns()) / 1e9))

    def _call_due(self) -> None:
        now_ns = self._clock.monotonic_ns()
        while self._heap[0][0] <= now_ns:
            due_ns, index = heapq.heappop(self._heap)
            if due_ns == self._due[index]:
                self._late_ns.append(self._clock.monotonic_ns() - due_ns)
                self._devices[index].due()
                self._after(index)

    def _after(self, index: int) -> None:
        """Watch what is to be watched now, and note when the device is due and whether it is connected."""
        device = self._devices[index]
        self._watch(index, device.fd, device.uplink.wants_write)
        if device.due_ns != self._due[index]:
            self._due[index] = device.due_ns
            heapq.heappush(self._heap, (device.due_ns, index))
        if device.uplink.connected != self._up[index]:
            self._up[index] = device.uplink.connected
            line = {"device": device.name, "up": self._up[index], "mono_ns": self._clock.monotonic_ns()}
            self._connections.write(json.dumps(line) + "\n")

    def _watch(self, index: int, fd: int | None, writing: bool) -> None:
        """A socket that was closed has left epoll by itself, and its number may belong to another file by now."""
        old = self._fds[index]
        if old is not None and old != fd:
            self._watched.pop(old, None)
            with suppress(OSError):
                self._epoll.unregister(old)
        self._fds[index] = fd
        if fd is None:
            return
        mask = select.EPOLLIN | (select.EPOLLOUT if writing else 0)
        self._watched[fd] = index
        try:
            self._epoll.modify(fd, mask)
        except FileNotFoundError:
            self._epoll.register(fd, mask)

    def _tell(self) -> None:
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._state_ns < STATE_EVERY_NS:
            return
        self._state_ns = now_ns
        self._connections.flush()
        late_ns = sorted(self._late_ns) or [0]
        state = {
            "late_ms_p99": round(late_ns[len(late_ns) * 99 // 100] / 1e6),
            "late_ms_max": round(late_ns[-1] / 1e6),
            "connected": sum(self._up),
            "waiting": sum(device.waiting for device in self._devices),
            "produced": sum(device.produced for device in self._devices),
        }
        new = self._state.with_suffix(".new")
        new.write_text(json.dumps(state))
        new.replace(self._state)


def allow_files(count: int) -> None:
    """Raise the soft limit of open files; ResourceError where the hard one is too low."""
    needed = count * FILES_EACH + FILES_SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ResourceError(
            f"{count} devices in one process need {needed} open files, {hard} are allowed; use more --workers, or ulimit -n"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def wait_for_begin(folder: Path, stopping: threading.Event) -> int:
    """Say that all devices are there; when to begin, by the monotonic clock, as soon as the file `begin` tells it."""
    (folder / READY).touch()
    begin = folder / BEGIN
    while not begin.exists() and not stopping.wait(WAIT_S):
        pass
    return int(begin.read_text()) if begin.exists() else 0


def run(args: argparse.Namespace, stopping: threading.Event) -> None:
    allow_files(args.count)
    args.folder.mkdir(parents=True, exist_ok=True)
    clock = SystemClock()
    plan = Plan(args.folder, args.port, args.spread_s, args.records, args.every_s)
    ledger = LedgerFile(args.folder / LEDGER)
    devices = [
        Device(number, plan, clock, lambda event: ledger.taken([event], True))
        for number in range(args.first, args.first + args.count)
    ]
    begin_ns = wait_for_begin(args.folder, stopping)
    for device in devices:
        device.begin(begin_ns)
    with (args.folder / CONNECTIONS).open("w") as connections:
        Loop(devices, clock, connections, args.folder / STATE).run(stopping)
    ledger.sync()
    for device in devices:
        device.close()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--first", type=int, required=True, help="number of the first device")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--spread-s", type=float, required=True)
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--every-s", type=float, required=True)
    args = parser.parse_args(argv)
    end_with_parent()
    log.setup(f"fleet-{args.first}")
    try:
        run(args, stop_event())
    except GudgeonError as error:
        print(f"fleet: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
