"""`gudgeon update floor`: the version floor of this device, below which nothing is taken.

    gudgeon update floor show  --config device.toml [--json]
    gudgeon update floor reset --from DIR --config device.toml [--confirm DEVICE]

`reset` is for a floor that was lost in both of its files, for nothing else. DIR holds the newest metadata of the repository,
brought by hand: a medium of `gudgeon repo export`, or a copy of the repository's `repo` folder. What the device begins again with
is told; with `--confirm` and its own name it is done, and recorded as the Event `version_floor_reset`. No message over a network
does this.

Exit codes: 0; 2 nothing was lost, or not confirmed; 4 the metadata are refused; 6 the floor is lost (show)."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_runtime import config
from edge_runtime.clock import SystemClock
from edge_runtime.config import DeviceConfig
from edge_runtime.errors import ConfigError, ResourceError, UsageError
from edge_runtime.outbox.opening import open_outbox
from edge_runtime.outbox.recorder import Recorder
from edge_runtime.update import lock, records
from edge_runtime.update.tuf.floor import Floor, FloorFiles, lost, stored
from edge_runtime.update.tuf.recovery import proved
from edge_runtime.update.tuf.repository import FOLDER, METADATA, ROOT, root_bytes
from edge_runtime.update.tuf.source import FolderSource
from edge_runtime.who import user_name

EVENT = "version_floor_reset"


def show(device: DeviceConfig, as_json: bool) -> int:
    folder = device.device.state_dir / FOLDER
    gone, floor = lost(folder, folder / METADATA), stored(folder)
    print(json.dumps({"lost": gone, **_plain(floor)}) if as_json else f"lost: {gone}" if gone else _text(floor))
    return ResourceError.exit_code if gone else 0


def reset(device: DeviceConfig, medium: Path, confirm: str) -> int:
    state_dir, name = device.device.state_dir, device.device.id
    root = root_bytes(state_dir)
    if root is None:
        raise ConfigError(f"{state_dir / FOLDER / ROOT}: missing; enrol this device again, its trust begins there")
    source = FolderSource(medium / METADATA)
    held = [records.read(state_dir, slot_set).record for slot_set in records.slot_sets(state_dir)]
    with lock.writing(state_dir):
        floor = proved(state_dir, root, source, SystemClock(), held)
        print(f"this device would begin again with: {_text(floor)}")
        if confirm != name:
            raise UsageError(
                f"nothing was changed: be sure that {medium} is the newest there is, from the one who signs releases, and that "
                f"this device runs what it should (gudgeon update status); then add --confirm {name}"
            )
        _record(device, floor, medium)
        FloorFiles.begin_again(state_dir / FOLDER, floor)
    print("begun again")
    return 0


def _record(device: DeviceConfig, floor: Floor, medium: Path) -> None:
    """Before it is done: an Event without the deed is harmless."""
    outbox = open_outbox(device)
    try:
        recorder = Recorder(outbox, lambda: None)
        body = {**floor.versions, "from": str(medium), "by": user_name()}
        if not recorder.record(("fault", EVENT, body)):
            raise ResourceError(f"not recorded, and therefore not done: {recorder.error}")
    finally:
        outbox.close()


def _plain(floor: Floor) -> dict[str, Any]:
    return {**asdict(floor), "roles": dict(floor.roles), "keys": {role: sorted(k) for role, k in floor.keys.items()}}


def _text(floor: Floor) -> str:
    roles = {role: version for role, version in sorted(floor.roles.items()) if role != "targets"}
    told = {**floor.versions, **roles, "assignment": max(floor.counters.values(), default=0)}
    return ", ".join(f"{name} {version}" for name, version in told.items())


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gudgeon update floor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["show", "reset"])
    parser.add_argument("--config", type=Path, required=True, metavar="device.toml")
    parser.add_argument("--from", dest="medium", type=Path, metavar="DIR", help="with metadata/, brought by hand")
    parser.add_argument("--confirm", default="", metavar="DEVICE", help="this device's name: do it")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    device = config.load_device(args.config)
    if args.action == "show":
        return show(device, args.json)
    if args.medium is None or not (args.medium / METADATA).is_dir():
        parser.error("reset needs --from DIR, a folder with metadata/ in it")
    return reset(device, args.medium, args.confirm)
