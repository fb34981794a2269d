"""`gudgeon install`: a bundle from a folder, by hand or at the start: verify, stage a copy, verify the copy, try it, switch.

- A bundle that fails anywhere leaves the running one as it was. The switch is one slot record, so that a power cut at any
  instruction boots either the old bundle or the new one.
- A managed device (it was given a root of trust) takes releases from its repository only, unless `[update] allow_local`.
- A slot set takes one kind of bundle (`SLOT_SETS`): nothing would run one that lies elsewhere.
- At the start (`--at-start`) what came as an update stays: the configuration's bundle does not take its place.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge_runtime import config
from edge_runtime.errors import BundleError, GudgeonError, ResourceError, UsageError
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer import kinds, select
from edge_runtime.update import keyring, legacy, lock, records, slots, states, trust
from edge_runtime.update.records import Job, RecordError, Release, SlotRecord
from edge_runtime.update.store import Store, address
from edge_runtime.wire import manifest as wire
from edge_runtime.wire.assignment import SLOT_SET
from edge_runtime.wire.update_status import UpdateState

#: kind of a bundle → the slot sets that take it, for people and as a pattern
SLOT_SETS: Mapping[str, tuple[str, re.Pattern[str]]] = {
    "vision": ("default, shadow or recipe-<code>", re.compile(r"default|shadow|recipe-\d+")),
    "anomaly": ("asset-<name>-anomaly", re.compile(r"asset-.+-anomaly")),
    "rul": ("asset-<name>-rul", re.compile(r"asset-.+-rul")),
}


@dataclass(frozen=True)
class Installed:
    """`changed` is False where this digest was already active."""

    path: Path
    digest: str
    signer: str
    changed: bool


def install(
    bundle_dir: Path, state_dir: Path, slot_set: str = "default", engine: str = "auto", allow_local: bool = False
) -> Installed:
    """Install `bundle_dir`; BundleError if it is refused, ResourceError if there is no room."""
    if not SLOT_SET.fullmatch(slot_set):
        raise UsageError(f"slot set {slot_set!r}: expected 1 to 32 characters of a-z 0-9 -")
    if slots.managed(state_dir) and not allow_local:
        raise BundleError(
            f"{bundle_dir}: this device is managed: it takes releases from its repository only; assign one there, or set "
            "[update] allow_local = true"
        )
    keys = keyring.trusted_keys(state_dir)
    for ours in (records.SLOTS, Store(state_dir).folder.name):
        if bundle_dir.resolve().is_relative_to((state_dir / ours).resolve()):
            raise UsageError(
                f"{bundle_dir} is inside the device's own {ours}; install from the folder that it came from"
            )
    signer = verify_signature(bundle_dir, keys)
    digest = kinds.load(bundle_dir).digest
    expected, fits = SLOT_SETS[kind := kinds.kind_of(bundle_dir)]
    if not fits.fullmatch(slot_set):
        raise UsageError(f"slot set {slot_set!r} takes no bundle of kind {kind}: expected --slot-set {expected}")
    with lock.writing(state_dir):
        legacy.migrate(state_dir)
        return _install(bundle_dir, state_dir, slot_set, engine, Installed(bundle_dir, digest, signer, changed=True))


def _install(bundle_dir: Path, state_dir: Path, slot_set: str, engine: str, wanted: Installed) -> Installed:
    store = Store(state_dir)
    store.clean()
    records.sync(state_dir, slot_set)
    record = _record(state_dir, slot_set)
    release = Release(_address(bundle_dir), wanted.digest)
    path = store.path(release.sha256)
    if record.confirmed and record.confirmed.sha256 == release.sha256 and not store.problem(release.sha256):
        return replace(wanted, path=path, changed=False)
    if record.state is UpdateState.TRIAL and record.job and not record.job.release.target:
        record = states.roll_back(record, "the installation was cut")
    if record.state is UpdateState.TRIAL:
        raise ResourceError(f"slot set {slot_set}: an update is on trial; install when it has ended")
    store.put(release.sha256, lambda into: legacy.copy(bundle_dir, into))
    record = states.staged(states.take(_free(record, release), Job(release, tries_left=1, since_ns=time.time_ns())))
    records.write(state_dir, slot_set, record)
    record = states.try_once(record, time.time_ns())
    records.write(state_dir, slot_set, record)
    try:
        verify_signature(path, keyring.trusted_keys(state_dir))
        select.choose(kinds.load(path), state_dir / "engines.json", engine).engine.close()
    except GudgeonError as error:
        records.write_end(state_dir, slot_set, _free(states.roll_back(record, str(error)), release))
        raise BundleError(f"bundle {bundle_dir}: refused in its trial: {error}") from error
    records.write_end(state_dir, slot_set, states.confirm(record, now_ns=time.time_ns()))
    keep = slots.named(state_dir)
    if keep is not None:
        store.collect(keep)
    return replace(wanted, path=path)


def _record(state_dir: Path, slot_set: str) -> SlotRecord:
    try:
        return records.read(state_dir, slot_set).record
    except RecordError:
        return SlotRecord()  # this installation ends the safe mode


def _free(record: SlotRecord, release: Release) -> SlotRecord:
    """Who installs by hand may try the same bundle again; a refusal is for assignments."""
    return replace(record, refused={sha: n for sha, n in record.refused.items() if sha != release.sha256})


def _address(bundle_dir: Path) -> str:
    try:
        return address(bundle_dir)
    except (OSError, ValueError) as error:
        raise BundleError(f"bundle {bundle_dir}: {error}") from error


def kept_at_start(state_dir: Path, slot_set: str, allow_local: bool) -> str:
    """Why the bundle that the configuration names is not installed at the start; "" where it may be."""
    if slots.managed(state_dir) and not allow_local:
        return "this device is managed"
    try:
        record = records.read(state_dir, slot_set).record
    except RecordError:
        return ""
    if record.confirmed and record.confirmed.target:
        return f"{record.confirmed.target} came as an update"
    return "an update is on trial" if record.state is UpdateState.TRIAL else ""


def verify_signature(bundle_dir: Path, keys: trust.KeySet) -> str:
    data = bundles.read_manifest_bytes(bundle_dir)
    file = bundle_dir / wire.SIGNATURE
    try:
        return trust.verify(data, file.read_bytes() if file.is_file() else None, keys)
    except BundleError as error:
        raise BundleError(f"{bundle_dir}: {error}") from error


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gudgeon install", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE_DIR")
    parser.add_argument("--config", type=Path, required=True, metavar="device.toml")
    parser.add_argument(
        "--slot-set",
        default="default",
        help="default, shadow, recipe-<code>, or asset-<name>-anomaly and asset-<name>-rul",
    )
    parser.add_argument("--at-start", action="store_true", help="keep what came as an update (the supervisor does so)")
    args = parser.parse_args(argv)
    device = config.load_device(args.config)
    state_dir, allow_local = device.device.state_dir, device.update.allow_local
    reason = kept_at_start(state_dir, args.slot_set, allow_local) if args.at_start else ""
    if reason:
        print(f"{args.bundle} is not installed in slot set {args.slot_set}: {reason}")
        return 0
    done = install(args.bundle, state_dir, args.slot_set, device.bundle.engine, allow_local)
    verb = "installed" if done.changed else "already active:"
    print(f"{verb} {done.digest[:12]} in {done.path}, signed by {done.signer}")
    return 0


if __name__ == "__main__":
    from edge_runtime.cli import run

    sys.exit(run("install", sys.argv[1:]))
