"""`gudgeon install`: the only road of a bundle into `slots/`: verify, stage a copy, verify the copy, try it, switch.

A bundle that fails anywhere leaves the running one as it was. The switch is one atomic file replacement, so that a
power cut at any instruction boots either the old bundle or the new one.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_runtime import config
from edge_runtime.durable import disk_errors, sync_folder
from edge_runtime.errors import BundleError, GudgeonError, UsageError
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer import kinds, select
from edge_runtime.infer.bundle import Bundle
from edge_runtime.infer.series_bundle import SeriesBundle
from edge_runtime.update import keyring, slots, trust
from edge_runtime.update.slots import SlotInput, SlotState
from edge_runtime.wire import manifest as wire

SLOT_SET = re.compile(r"[a-z0-9-]{1,32}")


@dataclass(frozen=True)
class Installed:
    """`changed` is False where this digest was already active."""

    path: Path
    digest: str
    signer: str
    changed: bool


def install(bundle_dir: Path, state_dir: Path, slot_set: str = "default", engine: str = "auto") -> Installed:
    """Install `bundle_dir`; BundleError if it is refused, ResourceError if there is no room."""
    if not SLOT_SET.fullmatch(slot_set):
        raise UsageError(f"slot set {slot_set!r}: expected 1 to 32 characters of a-z 0-9 -")
    keys = keyring.trusted_keys(state_dir)
    if bundle_dir.resolve().is_relative_to((state_dir / "slots").resolve()):
        raise UsageError(f"{bundle_dir} is inside the device's own slots; install from the folder that it came from")
    signer = verify_signature(bundle_dir, keys)
    source = kinds.load(bundle_dir)
    record = slots.read(state_dir, slot_set)
    if record.current and record.slots[record.current].digest == source.digest:
        current = record.path(record.current)
        try:
            kinds.load(current)
            return Installed(current, source.digest, signer, changed=False)
        except BundleError:
            pass  # the installed copy is damaged: install it again into the other slot
    name = record.other
    record = _stage(source, record, name)
    verify_signature(record.path(name), keys)
    record = record.with_slot(name, record.slots[name].after(SlotInput.TRY))
    slots.write(record)
    try:
        select.choose(kinds.load(record.path(name)), state_dir / "engines.json", engine).engine.close()
    except GudgeonError as error:
        slots.write(record.with_slot(name, record.slots[name].after(SlotInput.FAIL, str(error))))
        raise BundleError(f"bundle {bundle_dir}: refused in its trial: {error}") from error
    passed = record.slots[name].after(SlotInput.PASS)
    if passed.state is not SlotState.ACTIVE:
        raise BundleError(f"slot {name} is {passed.state.value} after its trial, expected active")
    slots.write(record.with_slot(name, passed, current=name))
    return Installed(record.path(name), source.digest, signer, changed=True)


def verify_signature(bundle_dir: Path, keys: trust.KeySet) -> str:
    data = bundles.read_manifest_bytes(bundle_dir)
    file = bundle_dir / wire.SIGNATURE
    try:
        return trust.verify(data, file.read_bytes() if file.is_file() else None, keys)
    except BundleError as error:
        raise BundleError(f"{bundle_dir}: {error}") from error


def _stage(source: Bundle | SeriesBundle, record: slots.SlotSet, name: str) -> slots.SlotSet:
    """Copy into the slot, durably; on a full disk the slot is empty again and the error says so."""
    cleared = record.with_slot(name, record.slots[name].after(SlotInput.CLEAR))
    slots.write(cleared)
    target = record.path(name)
    with disk_errors(target):
        try:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            for file in (wire.MANIFEST, wire.SIGNATURE, *source.manifest.files):
                shutil.copyfile(source.path / file, target / file)
                with (target / file).open("rb") as copied:
                    os.fsync(copied.fileno())
            sync_folder(target)
            sync_folder(target.parent)
        except OSError:
            shutil.rmtree(target, ignore_errors=True)
            raise
    staged = slots.Slot(SlotState.EMPTY, source.digest).after(SlotInput.STAGE)
    record = cleared.with_slot(name, staged)
    slots.write(record)
    return record


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gudgeon install", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE_DIR")
    parser.add_argument("--config", type=Path, required=True, metavar="device.toml")
    parser.add_argument("--slot-set", default="default", help="default, shadow or recipe-<code>")
    args = parser.parse_args(argv)
    device = config.load_device(args.config)
    done = install(args.bundle, device.device.state_dir, args.slot_set, device.bundle.engine)
    verb = "installed" if done.changed else "already active:"
    print(f"{verb} {done.digest[:12]} in {done.path}, signed by {done.signer}")
    return 0


if __name__ == "__main__":
    from edge_runtime.cli import run

    sys.exit(run("install", sys.argv[1:]))
