"""`gudgeon update`: what this device runs, what it is asked to run, and what comes of it.

    gudgeon update status --config device.toml [--json]        from records and store, whether the device runs or not
    gudgeon update now    --config device.toml                 have the updater ask the cloud at once
    gudgeon update --from DIR --config device.toml             from a medium that was carried here, by the same rules
    gudgeon update floor show|reset --config device.toml       below which nothing is taken; see gudgeon update floor --help

DIR holds `metadata/`, `targets/` and `assignments/<device>`, as `gudgeon repo export` writes them.

Exit codes: 0 everything is as it should be, or was done; 1 an update was refused or rolled back (--from); 4 a slot set is in safe
mode; 5 there is no updater to wake, nothing on the medium for this device, or something is missing for now (--from)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event
from typing import Any, TextIO

from edge_runtime import config
from edge_runtime.clock import SystemClock
from edge_runtime.config import DeviceConfig
from edge_runtime.errors import BundleError, EndpointError, UsageError
from edge_runtime.update import lock, records, slots
from edge_runtime.update.gate import Candidate, Gate, Verdict
from edge_runtime.update.gates import Gates
from edge_runtime.update.process import STATUS_FILE, make_updater
from edge_runtime.update.updater import Updater
from edge_runtime.update.wake import SOCKET_PATH, wake
from edge_runtime.wire.update_status import ENDED, UpdateState

SAFE_MODE = BundleError.exit_code


def state_of(state_dir: Path) -> dict[str, Any]:
    """Of each slot set; `safe_mode` says why nothing of it can run, "" where something can."""
    found: dict[str, Any] = {}
    for slot_set in records.slot_sets(state_dir):
        try:
            read = records.read(state_dir, slot_set)
        except BundleError as error:
            found[slot_set] = {"state": "unknown", "safe_mode": str(error)}
            continue
        record, runs, safe_mode = read.record, "", ""
        try:
            boot = next(slots.bootable(state_dir, slot_set), None)
            runs = boot.release.sha256 if boot else ""
        except BundleError as error:
            safe_mode = str(error)
        plain = asdict(record)
        found[slot_set] = {
            **plain, "state": record.state.value, "sequence": read.sequence, "damaged_records": list(read.damaged),
            "starts_with": runs, "safe_mode": safe_mode,
        }  # fmt: skip
    return found


def status(device: DeviceConfig, as_json: bool) -> int:
    state_dir = device.device.state_dir
    found = state_of(state_dir)
    managed = slots.managed(state_dir)
    try:
        updater: dict[str, Any] = json.loads((state_dir / STATUS_FILE).read_text())
    except (OSError, ValueError):
        updater = {}
    if as_json:
        print(json.dumps({"managed": managed, "updater": updater, "slots": found}, indent=1))
    else:
        print(
            "managed: takes releases from its repository"
            if managed
            else "not managed: takes bundles by `gudgeon install`"
        )
        if updater.get("error"):
            print(f"updater: {updater['error']}")
        for slot_set, row in found.items():
            _show(slot_set, row)
        if not found:
            print("no release yet: nothing was assigned or installed so far")
    return SAFE_MODE if any(row["safe_mode"] for row in found.values()) else 0


def _show(slot_set: str, row: dict[str, Any]) -> None:
    print(f"{slot_set}: {row['state']}")
    if row["safe_mode"]:
        print(f"  safe mode: {row['safe_mode']}")
        return
    for name in ("confirmed", "previous"):
        release = row[name]
        if release:
            print(f"  {name:<9} {release['sha256'][:12]}  {release['target'] or 'installed by hand'}")
    job = row["job"]
    if job and row["state"] != UpdateState.CONFIRMED.value:
        release = job["release"]
        print(f"  {row['state']:<9} {release['sha256'][:12]}  {release['target']}  tries left {job['tries_left']}")
        if job["reason"]:
            print(f"            {job['reason']}")


def now(device: DeviceConfig) -> int:
    if not wake(device.device.state_dir / SOCKET_PATH):
        raise EndpointError(
            "no updater runs on this device; `gudgeon run` starts it where device.toml has [update] url or medium"
        )
    print("asked; see: gudgeon update status")
    return 0


def from_folder(device: DeviceConfig, config_path: Path, folder: Path, as_json: bool) -> int:
    """Take what the medium assigns to its end. What the cloud is told later is told by the updater. `as_json`: progress goes to
    standard error, and at the end the status to standard output."""
    state_dir = device.device.state_dir
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; mount the medium, or name the folder that was copied from it")
    updater = make_local(device, config_path, folder)
    with lock.writing(state_dir):
        code = carry_out(updater, SystemClock().sleep, out=sys.stderr if as_json else sys.stdout)
    if as_json:
        status(device, as_json)
    return code


class _StartedWithTheDevice:
    """The gate of a runtime or a configuration here: they are tried by starting the device with them, so by itself."""

    def runs(self, candidate: Candidate) -> bool:
        return False

    def check(self, candidate: Candidate) -> Verdict:
        raise EndpointError(
            f"slot set {candidate.slot_set} starts the whole device, so that the device must take it by itself: name the medium "
            "as [update] medium in device.toml, then: gudgeon update now"
        )

    def begin(self, candidate: Candidate) -> None:
        self.check(candidate)

    def trial(self, candidate: Candidate) -> Verdict | None:
        return None

    def revert(self, to: Candidate | None) -> None:
        """Done by who starts the device."""


def make_local(device: DeviceConfig, config_path: Path, folder: Path) -> Updater:
    of_medium = replace(device.update, url="", medium=folder, poll_s=5.0)
    gates, whole = Gates(device, config_path), _StartedWithTheDevice()

    def gate(slot_set: str) -> Gate | None:
        return whole if slot_set in ("runtime", "config") else gates(slot_set)

    return make_updater(replace(device, update=of_medium), config_path, Event(), lambda item: None, gate)


def carry_out(updater: Updater, sleep: Callable[[float], None], limit: int = 100_000, out: TextIO | None = None) -> int:
    """Turns until each assigned slot set has come to an end. EndpointError where something is missing that no turn changes: the
    same command goes on."""
    told = ""
    for _ in range(limit):
        pause_s = updater.turn()
        if updater.error:
            raise EndpointError(updater.error)
        rows = updater.status().slots
        text = "; ".join(f"{name}: {row.state.value} {row.reason}".strip() for name, row in sorted(rows.items()))
        if text != told:
            print(text, file=out, flush=True)
        told = text
        assigned = [row for name, row in rows.items() if name in updater.assigned]
        if all(row.state in ENDED for row in assigned) or updater.resting:
            return 0 if all(row.state is UpdateState.CONFIRMED for row in assigned) else 1
        if updater.stuck:
            raise EndpointError(f"not at an end: {text}; see to it, then run the command again")
        sleep(min(pause_s, 1.0))
    raise EndpointError("not at an end yet; run the command again")


def main(argv: list[str]) -> int:
    if argv[:1] == ["floor"]:
        from edge_runtime.update import floor_cli

        return floor_cli.main(argv[1:])
    parser = argparse.ArgumentParser(
        prog="gudgeon update", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", nargs="?", choices=["status", "now"], metavar="status|now|floor")
    parser.add_argument("--config", type=Path, required=True, metavar="device.toml")
    parser.add_argument(
        "--from", dest="folder", type=Path, metavar="DIR", help="a medium with repository and assignment"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if bool(args.action) == bool(args.folder):
        parser.error("expected status, now, floor or --from DIR")
    device = config.load_device(args.config)
    if args.folder:
        return from_folder(device, args.config, args.folder, args.json)
    return now(device) if args.action == "now" else status(device, args.json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
