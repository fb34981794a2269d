"""The process `control`: the field, the engine and the outbox. Its sockets lead to the PLC, the camera and this device only.

Started by the supervisor as ``python -m edge_runtime.control_process --config device.toml``. With ``--spare`` it loads and warms
what is confirmed and waits: a line on its standard input, which says why, makes it the `control` of this device.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edge_runtime import log
from edge_runtime.boot import boot_id
from edge_runtime.child import child_main, stop_event
from edge_runtime.clock import SystemClock
from edge_runtime.config import CameraSection, DeviceConfig, PlcSection
from edge_runtime.datagrams import LINK_PATH, Sender
from edge_runtime.decide import engine_watch, swap_socket, trial_files
from edge_runtime.decide.engine_watch import EngineWatch
from edge_runtime.decide.inbox import SOCKET_PATH, CommandSocket, Inbox
from edge_runtime.decide.jobs import ReviewFolder, Shadow
from edge_runtime.decide.loop import Loop, Settings
from edge_runtime.decide.models import Job, Models
from edge_runtime.decide.swap import Swap
from edge_runtime.decide.swap_socket import SwapSocket
from edge_runtime.decide.trial_files import TrialFiles
from edge_runtime.durable import disk_errors
from edge_runtime.errors import BundleError
from edge_runtime.field.camera import Camera
from edge_runtime.field.driver import Driver
from edge_runtime.field.handshake import handshake
from edge_runtime.infer.model import Model, load_model
from edge_runtime.outbox.opening import open_outbox
from edge_runtime.outbox.recorder import Recorder
from edge_runtime.outbox.store import Outbox
from edge_runtime.update import slots

REALTIME_PRIORITY = 20
LINE_DOWN_WAIT_S = 0.02
RUN = "run"


def make_driver(plc: PlcSection) -> Driver:
    if plc.protocol == "opcua":
        from edge_runtime.field.opcua import OpcUaDriver

        return OpcUaDriver(plc.host, plc.port, plc.timeout_ms / 1000.0)
    from edge_runtime.field.modbus import ModbusDriver

    return ModbusDriver(plc.host, plc.port, plc.unit_id, plc.timeout_ms / 1000.0)


def make_camera(camera: CameraSection) -> Camera:
    if camera.driver == "socket":
        from edge_runtime.field.camera_socket import SocketCamera

        return SocketCamera(camera.host, camera.port)
    if camera.driver == "v4l2":
        from edge_runtime.field.camera_v4l2 import V4l2Camera

        return V4l2Camera(camera.path, camera.width, camera.height)
    from edge_runtime.field.camera_folder import FolderCamera

    return FolderCamera(camera.path)


def model_loader(device: DeviceConfig) -> Callable[[Path], Model]:
    """Reads, verifies and warms a bundle as this device wants it."""
    cache, engine = device.device.state_dir / "engines.json", device.bundle.engine
    return lambda path: load_model(path, cache, engine)


def load_models(device: DeviceConfig, tell: Callable[[str, str, str], None]) -> Models:
    """What runs in each slot set, its hash found right. One whose newest release cannot run falls back to the one before it;
    one without any is in safe mode, and its parts are answered `fault`: both are told (kind, slot set, reason).

    BundleError where nothing was ever installed and no cloud is there to ask."""
    state_dir = device.device.state_dir
    load = model_loader(device)

    def model(slot_set: str) -> Model | None:
        try:
            for found in slots.bootable(state_dir, slot_set):
                try:
                    loaded = load(found.path)
                except BundleError as error:
                    tell("release_unusable", slot_set, str(error))
                    continue
                if found.fallback:
                    tell("release_fallback", slot_set, found.fallback)
                return loaded
        except slots.SafeModeError as error:
            tell("safe_mode", slot_set, str(error))
            return None
        if device.update.takes:
            return None  # it waits for its first assignment
        raise BundleError(
            f"no bundle is installed in {state_dir} ({slot_set}); run: gudgeon install BUNDLE_DIR --config device.toml"
        )

    by_recipe = {int(code): model(f"recipe-{code}") for code in device.bundle.recipes}
    return Models(model("default"), by_recipe, model("shadow") if device.bundle.shadow else None)


def make_jobs(device: DeviceConfig, swap: Swap) -> tuple[Job, ...]:
    c, shadow = device.control, swap.models.shadow
    review = ReviewFolder(device.device.state_dir / "review", c.review_max_bytes, c.share_review_frames)
    return (swap.seen, review, Shadow(shadow)) if shadow else (swap.seen, review)


def make_swap(device: DeviceConfig, models: Models, lost: str) -> Swap:
    state_dir, clock = device.device.state_dir, SystemClock()
    return Swap(
        models,
        SwapSocket(state_dir / swap_socket.SOCKET_PATH),
        model_loader(device),
        EngineWatch(state_dir / engine_watch.PATH, clock.monotonic_ns),
        TrialFiles(state_dir / RUN, boot_id()),
        device.trial,
        device.control.deadline_ms,
        clock,
        lost,
    )


def make_loop(
    device: DeviceConfig, swap: Swap, outbox: Outbox, recorder: Recorder, inbox: Inbox, driver: Driver, camera: Camera
) -> Loop:
    plc, control = device.plc, device.control
    settings = Settings(control.deadline_ms, control.frame_timeout_ms, control.heartbeat_ms, plc.pulse_ms, plc.poll_ms)
    return Loop(
        settings,
        handshake(plc.map, in_one_request=plc.protocol == "modbus"),
        driver,
        camera,
        swap,
        recorder,
        SystemClock(),
        outbox.last("decision"),
        jobs=make_jobs(device, swap),
        inbox=inbox,
        points=device.commands.allowed,
    )


def go_realtime(wanted: bool) -> str:
    """SCHED_FIFO where the system allows it; says what was done."""
    if not wanted:
        return "off"
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REALTIME_PRIORITY))
    except (OSError, AttributeError):
        return "not permitted"
    return "SCHED_FIFO"


def give_memory_back() -> None:
    """What loading the bundle took and left free goes back to the system (glibc; elsewhere nothing happens)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def run(device: DeviceConfig, spare: bool = False) -> None:
    state_dir = device.device.state_dir
    with disk_errors(state_dir):
        (state_dir / RUN).mkdir(parents=True, exist_ok=True)
    told: list[tuple[str, str, str]] = []
    models = load_models(device, lambda *what: told.append(what))
    driver, camera = make_driver(device.plc), make_camera(device.camera)
    lost: str | None = ""
    if spare and (lost := wait_for_turn(state_dir / RUN)) is None:
        return
    outbox = open_outbox(device)
    recorder = Recorder(outbox, Sender(state_dir / LINK_PATH))
    for what in told:
        tell_release(recorder, *what)
    inbox = CommandSocket(state_dir / SOCKET_PATH)
    swap = make_swap(device, models, lost or "")
    loop = make_loop(device, swap, outbox, recorder, inbox, driver, camera)
    report_models(recorder, models)
    stopping = stop_event()
    realtime = go_realtime(device.control.realtime)
    gc.collect()
    gc.freeze()
    gc.disable()
    give_memory_back()
    engine = models.default.engine if models.default else None
    name, variant = (engine.name, engine.variant) if engine else ("none", "none")
    log.say(logging.INFO, "control runs", engine=name, variant=variant, realtime=realtime)
    while not stopping.is_set():
        wait_s = loop.step()
        if wait_s > LINE_DOWN_WAIT_S:
            gc.collect()  # the PLC is away: errors make cycles, and nobody waits
        if wait_s:
            time.sleep(wait_s)
    loop.stop()
    swap.close()
    outbox.close()


def wait_for_turn(run_dir: Path) -> str | None:
    """Tell that this spare is ready, and wait; why the `control` before it ended, None where it is not needed any more."""
    gc.collect()
    gc.freeze()
    give_memory_back()
    with disk_errors(run_dir):
        (run_dir / trial_files.READY).write_text(str(os.getpid()))
    line = sys.stdin.readline()
    return line.strip() if line else None


def tell_release(recorder: Recorder, kind: str, slot_set: str, reason: str) -> None:
    log.say(logging.ERROR, kind.replace("_", " "), slot_set=slot_set, reason=reason)
    recorder.record(("fault", kind, {"slot_set": slot_set, "reason": reason}))


def report_models(recorder: Recorder, models: Models) -> None:
    """One health Event for each bundle that runs, and a fault for each variant that was refused."""
    named = {"default": models.default, "shadow": models.shadow}
    named |= {f"recipe-{code}": m for code, m in models.by_recipe.items()}
    for slot_set, m in named.items():
        if m is None:
            continue
        body = {"slot_set": slot_set, "bundle_digest": m.digest, "engine": m.engine.name, "variant": m.engine.variant}
        faults = [("fault", "variant_refused", {"bundle_digest": m.digest, **vars(r)}) for r in m.refused]
        recorder.record(("health", "model_loaded", body), *faults)


if __name__ == "__main__":
    spare = "--spare" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--spare"]
    sys.exit(child_main("control", partial(run, spare=spare), arguments))
