"""The process `monitor`: sensors, windows, models, rules, alarms, for the assets of the configuration. It writes to no field
device, and `control` does not know of it.

Started by the supervisor as ``python -m edge_runtime.monitor_process --config device.toml``, where there are [[assets]] or
[[tags]].
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from edge_runtime import log
from edge_runtime.boot import boot_id
from edge_runtime.child import child_main, stop_event
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.config import DeviceConfig
from edge_runtime.control_process import RUN, give_memory_back
from edge_runtime.datagrams import LINK_PATH, Sender
from edge_runtime.decide.alarm_file import NAME, AlarmFile
from edge_runtime.decide.alarm_socket import SOCKET_PATH, AlarmSocket
from edge_runtime.decide.monitor import Loaded, Monitor
from edge_runtime.durable import disk_errors
from edge_runtime.errors import BundleError
from edge_runtime.field.sections import TagSection
from edge_runtime.field.source import ReportQueue
from edge_runtime.field.sources import make_sources
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer.series import SeriesModel, load_series_model
from edge_runtime.outbox.opening import open_outbox
from edge_runtime.outbox.recorder import Recorder
from edge_runtime.outbox.store import Outbox
from edge_runtime.tasks import REFUSED_FILE
from edge_runtime.update import slots
from edge_runtime.update.asset_gate import MODELS_FILE
from edge_runtime.update.store import Store
from edge_runtime.wire import manifest

NICE = 5
TURN_S = 0.1


def every_reading(section: TagSection) -> TagSection:
    """Windows need every reading, whatever the deadband, and a value that stands still again in each period; `Monitor` tells
    the cloud by exception."""
    return replace(section, deadband=0.0, report_every_s=section.period_s / 2)


def slot_of(state_dir: Path, engine: str) -> Callable[[str], Loaded]:
    """What is to run in a slot set now: what is confirmed, or a candidate that is on trial. The first look of this process is
    for what is confirmed: a candidate that ended the process before does not do so at once again."""
    looked: set[str] = set()

    def slot(slot_set: str) -> Loaded:
        candidate = slots.on_trial(state_dir, slot_set) if slot_set in looked else None
        looked.add(slot_set)
        if candidate is not None:
            path, sha256 = Store(state_dir).path(candidate.sha256), candidate.sha256
            return Loaded(candidate.digest or digest_in(path), lambda: load(path, Store(state_dir).problem(sha256)))
        return Loaded(slots.confirmed_digest(state_dir, slot_set), lambda: load(slots.active(state_dir, slot_set)))

    def load(path: Path | None, problem: str = "") -> SeriesModel:
        if path is None or problem:
            raise BundleError(problem or "no bundle is installed")
        return load_series_model(path, state_dir / "engines.json", engine)

    return slot


def digest_in(path: Path) -> str:
    return manifest.digest(bundles.read_manifest_bytes(path))


def tell_models(path: Path) -> Callable[[str, str, str], None]:
    """`run/models.json`: slot set → the digest that was taken last, and why it was refused. For the updater; best effort."""
    models: dict[str, dict[str, str]] = {}

    def tell(slot_set: str, digest: str, refused: str) -> None:
        models[slot_set] = {"digest": digest, "refused": refused}
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(models))
            temporary.replace(path)
        except OSError as error:
            log.say(logging.WARNING, "state not written", path=str(path), reason=str(error))

    return tell


def refused_at_start(state_dir: Path) -> Mapping[str, str]:
    try:
        found = json.loads((state_dir / REFUSED_FILE).read_text())
        return {str(name): str(reason) for name, reason in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}  # written by the supervisor alone; without one nothing was refused


def make_monitor(device: DeviceConfig, outbox: Outbox, clock: Clock) -> Monitor:
    state_dir = device.device.state_dir
    recorder = Recorder(outbox, Sender(state_dir / LINK_PATH))
    return Monitor(
        device.assets,
        {section.name: section.tag for section in device.tags},
        slot_of(state_dir, device.bundle.engine),
        refused_at_start(state_dir),
        recorder,
        AlarmFile(state_dir / NAME, boot_id(), outbox),
        clock,
        tell_models(state_dir / MODELS_FILE),
    )


def run(device: DeviceConfig) -> None:
    os.nice(NICE)
    state_dir = device.device.state_dir
    with disk_errors(state_dir):
        (state_dir / RUN).mkdir(parents=True, exist_ok=True)
    outbox = open_outbox(device)
    queue = ReportQueue()
    tags = [every_reading(section) for section in device.tags]
    sources = make_sources(device.endpoints, tags, queue.put, state_dir, device.device.id)
    monitor = make_monitor(device, outbox, SystemClock())
    asked = AlarmSocket(state_dir / SOCKET_PATH)
    stopping = stop_event()
    gc.collect()
    gc.freeze()
    give_memory_back()
    log.say(logging.INFO, "monitor runs", assets=list(monitor.assets))
    for source in sources:
        source.start()
    try:
        while not stopping.is_set():
            monitor.take(queue.take(TURN_S))
            asked.serve(monitor.ask, monitor.command)
            monitor.turn()
    finally:
        for source in sources:
            source.stop()
        monitor.close()
        asked.close()
        outbox.close()


if __name__ == "__main__":
    sys.exit(child_main("monitor", run))
