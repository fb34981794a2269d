"""The process `update`: asks the cloud, or a medium, for this device's assignment, and takes it there. It has no actuator, no
camera and no engine, runs below everything else, and is started where `[update] url` or `medium` is set. Where only
`[identity] url` is, it keeps the device's certificate alive and does nothing else.

Started by the supervisor as ``python -m edge_runtime.update.process --config device.toml``. A device that is not enrolled yet, a
cloud that is away and a full disk end nothing: it says so once, and tries again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from edge_runtime import log
from edge_runtime.boot import boot_id
from edge_runtime.child import child_main, stop_event
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.config import DeviceConfig
from edge_runtime.datagrams import LINK_PATH, Sender
from edge_runtime.durable import disk_errors
from edge_runtime.errors import GudgeonError
from edge_runtime.identity.cloud import Cloud
from edge_runtime.identity.credentials import CredentialStore
from edge_runtime.identity.judging import judge
from edge_runtime.identity.renewer import Renewer, Tell
from edge_runtime.link import time_floor
from edge_runtime.link.time_floor import TimeFloor
from edge_runtime.outbox.opening import open_outbox
from edge_runtime.outbox.recorder import Recorder
from edge_runtime.update import lock
from edge_runtime.update.cloud_port import CloudPort, FolderCloud, HttpCloud
from edge_runtime.update.fetch.fetcher import Fetcher
from edge_runtime.update.fetch.folder import FolderFetcher
from edge_runtime.update.fetch.http import HttpFetcher
from edge_runtime.update.fetch.metadata import FetchedMetadata
from edge_runtime.update.fetch.pace import Limits
from edge_runtime.update.gate import Gate
from edge_runtime.update.gates import Gates
from edge_runtime.update.getting import Getting, StoppableClock
from edge_runtime.update.seams import Device, Item, Seams
from edge_runtime.update.transport import tls_context
from edge_runtime.update.tuf.repository import METADATA, TrustedRepository, own_hardware
from edge_runtime.update.tuf.source import FolderSource, Source
from edge_runtime.update.updater import Updater
from edge_runtime.update.wake import SOCKET_PATH, Wake

NICE = 10
RETRY_S = 30.0
STATUS_FILE = Path("run") / "update.json"
#: assignments, metadata, artifacts
Ports = tuple[CloudPort, Source, Callable[[], Fetcher]]


def own_device(device: DeviceConfig) -> Device:
    """The first class of hardware is what this device is told as."""
    classes = own_hardware(device.update.hardware)
    first = device.update.hardware or sorted(classes)[0]
    return Device(device.device.id, boot_id(), (first, *sorted(classes - {first})))


def make_updater(
    device: DeviceConfig,
    config_path: Path,
    stopping: threading.Event,
    tell: Callable[[Item], None],
    gates: Callable[[str], Gate | None] | None = None,
) -> Updater:
    """`gates`: others than the device's own. ConfigError or EndpointError where this device was given no root of trust, or no
    certificate, yet."""
    section, state_dir, clock = device.update, device.device.state_dir, StoppableClock(stopping)
    cloud, source, fetcher = _medium(device, section.medium) if section.medium else _network(device, clock)
    seams = Seams(
        cloud,
        TrustedRepository.of(state_dir, source, clock),
        Getting(fetcher, state_dir, clock, Limits(most_bytes_s=section.rate_bytes_per_s)),
        gates or Gates(device, config_path),
        clock,
        tell,
        stopping.is_set,
    )
    return Updater(state_dir, own_device(device), seams, section.poll_s, section.store_bytes)


def _network(device: DeviceConfig, clock: Clock) -> Ports:
    section = device.update
    context = partial(tls_context, section, device.device.state_dir)

    def fetcher() -> HttpFetcher:
        return HttpFetcher(f"{section.url.rstrip('/')}/repo", context(), section.proxy)

    return HttpCloud(section.url, context, section.proxy), FetchedMetadata(fetcher, clock), fetcher


def _medium(device: DeviceConfig, folder: Path) -> Ports:
    return FolderCloud(folder, device.device.id), FolderSource(folder / METADATA), partial(FolderFetcher, folder)


def make_renewer(device: DeviceConfig, tell: Tell) -> Renewer:
    state_dir = device.device.state_dir
    floor = TimeFloor(state_dir / time_floor.FILE, SystemClock())
    cloud = Cloud(device.identity.url or device.update.url, judge(floor))
    return Renewer(CredentialStore(state_dir, device.device.id), cloud, tell)


class Runner:
    """Turns, under the lock, with pauses; and what is told of them in `run/update.json`."""

    def __init__(self, device: DeviceConfig, config_path: Path, stopping: threading.Event, wake: Wake) -> None:
        self._device, self._config_path, self._stopping, self._wake = device, config_path, stopping, wake
        self._state_dir = device.device.state_dir
        self._outbox = open_outbox(device)
        self._recorder = Recorder(self._outbox, Sender(self._state_dir / LINK_PATH))
        has_cloud = bool(device.identity.url or device.update.url)
        self._renew, self._renew_ns = make_renewer(device, self._tell_renewal) if has_cloud else None, 0
        self._updater: Updater | None = None
        self._said = ""

    def run(self) -> None:
        while not self._stopping.is_set():
            self._renew_when_due()
            if not self._device.update.takes:
                self._pause(RETRY_S)  # it only keeps its certificate alive
                continue
            try:
                pause_s = self._turns()
                self._say(self._updater.error if self._updater else "")
            except GudgeonError as error:
                self._updater = None  # made anew, from what is on the disk
                pause_s = RETRY_S
                self._say(str(error))
            self._pause(pause_s)

    def close(self) -> None:
        self._outbox.close()

    def _turns(self) -> float:
        if self._updater is None:
            self._updater = make_updater(self._device, self._config_path, self._stopping, self._tell)
        with lock.writing(self._state_dir):
            pause_s = self._updater.turn()
            while self._updater.on_trial and not self._stopping.is_set():
                self._say(self._updater.error)
                self._pause(pause_s)
                pause_s = self._updater.turn()
        return pause_s

    def _renew_when_due(self) -> None:
        """The certificate of this device, long before it ends."""
        if self._renew and self._renew.store.enrolled and time.monotonic_ns() >= self._renew_ns:
            self._renew_ns = time.monotonic_ns() + round(self._renew.step(time.time_ns()) * 1e9)

    def _tell_renewal(self, kind: str, body: Mapping[str, object]) -> None:
        self._tell(("health" if kind == "certificate_renewed" else "fault", kind, body))

    def _tell(self, item: Item) -> None:
        stream, kind, body = item
        self._recorder.record((stream, kind, dict(body)))

    def _pause(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while not self._stopping.is_set() and (left_s := end_s - time.monotonic()) > 0:
            if self._wake.wait(min(left_s, 0.5)):
                if self._updater:
                    self._updater.ask_soon()
                return

    def _say(self, error: str) -> None:
        """Into the log once; into the file each time. Best effort."""
        if error and error != self._said:
            log.say(logging.WARNING, "no update now", reason=error)
        self._said = error
        path = self._state_dir / STATUS_FILE
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps({"pid": os.getpid(), "turn_wall_ns": time.time_ns(), "error": error}))
            temporary.replace(path)
        except OSError as failed:
            log.say(logging.WARNING, "state not written", path=str(path), reason=str(failed))


def run(device: DeviceConfig, config_path: Path) -> None:
    os.nice(NICE)
    state_dir = device.device.state_dir
    with disk_errors(state_dir):
        (state_dir / "run").mkdir(parents=True, exist_ok=True)
    stopping = stop_event()
    wake = Wake(state_dir / SOCKET_PATH)
    runner = Runner(device, config_path, stopping, wake)
    log.say(logging.INFO, "update runs", url=device.update.url or str(device.update.medium or ""))
    try:
        runner.run()
    finally:
        runner.close()
        wake.close()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", type=Path, required=True)
    config_path: Path = parser.parse_known_args(argv)[0].config
    return child_main("update", partial(run, config_path=config_path), argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
