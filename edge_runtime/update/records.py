"""The record of a slot set: what is confirmed, what was confirmed before, and how far the newest assignment has come.

    <state_dir>/slots/<slot set>/record.0, record.1

- Two files, written in turn: always the one that is not the newest sound one, in place, then flushed. A power cut tears at
  most that one, and the other still holds. The one with the highest sequence number counts.
- A file has RECORD_BYTES, always: what is written over needs no room on a full disk. First line: the SHA-256 of the second
  line; second line: JSON; then spaces.
- One damaged file is normal after a power cut. Both damaged: `RecordError`; nothing says what may run, and the slot set is
  in safe mode until something is installed. No file at all, or a single one that is damaged (the very first write was cut):
  nothing was installed yet.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from edge_runtime.durable import disk_errors, make_folder, sync_folder
from edge_runtime.errors import BundleError
from edge_runtime.wire.envelope import INT64_MAX
from edge_runtime.wire.update_status import UpdateState

RECORD_BYTES = 16 * 1024
REASON_LIMIT = 300
REFUSED_LIMIT = 32
MEASURED_LIMIT = 32
FORMAT = 1
SLOTS = "slots"
NAMES = ("record.0", "record.1")


class RecordError(BundleError):
    """Neither record of a slot set can be read."""


@dataclass(frozen=True)
class Release:
    """One artifact. `digest`: of its manifest. `target`: its TUF path, "" for a local installation. `index` and `floor`: as
    the signed target says; 0 for a local installation."""

    sha256: str
    digest: str = ""
    target: str = ""
    index: int = 0
    floor: int = 0


@dataclass(frozen=True)
class Job:
    """The newest assignment that was taken. `tries_left`: how often it may still be started on trial. `checked`: it has
    passed its check before the trial. `since_ns`: wall time of the newest change of state."""

    release: Release
    rollout: str = ""
    counter: int = 0
    tries_left: int = 0
    checked: bool = False
    size_bytes: int = 0
    reason: str = ""
    since_ns: int = 0
    measured: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SlotRecord:
    """`refused`: hash → counter of the assignment up to which it is refused."""

    state: UpdateState = UpdateState.IDLE
    job: Job | None = None
    confirmed: Release | None = None
    previous: Release | None = None
    refused: Mapping[str, int] = field(default_factory=dict)

    @property
    def named(self) -> frozenset[str]:
        """The hashes that this record needs in the store."""
        held = [self.confirmed, self.previous]
        if self.job and self.state in (UpdateState.DOWNLOADING, UpdateState.STAGED, UpdateState.TRIAL):
            held.append(self.job.release)
        return frozenset(release.sha256 for release in held if release)


class Read(NamedTuple):
    """`damaged`: names of the files that are there and cannot be used; at most one. `named`: by either of the two files."""

    record: SlotRecord
    sequence: int
    damaged: tuple[str, ...]
    named: frozenset[str]


def folder_of(state_dir: Path, slot_set: str) -> Path:
    return state_dir / SLOTS / slot_set


def slot_sets(state_dir: Path) -> list[str]:
    """The slot sets that have a record, sound or not."""
    try:
        found = [p.name for p in (state_dir / SLOTS).iterdir() if any((p / name).exists() for name in NAMES)]
    except FileNotFoundError:
        return []
    return sorted(found)


def read(state_dir: Path, slot_set: str) -> Read:
    """The newest sound record; an empty one where nothing was installed. RecordError where both files are damaged."""
    folder = folder_of(state_dir, slot_set)
    found = {name: _load(folder / name) for name in NAMES}
    sound = {name: one for name, one in found.items() if isinstance(one, tuple)}
    damaged = tuple(name for name, one in found.items() if isinstance(one, str))
    if len(damaged) == len(NAMES):
        reasons = "; ".join(f"{name}: {found[name]}" for name in damaged)
        raise RecordError(
            f"{folder}: both records of slot set {slot_set} are damaged ({reasons}), so nothing says what may run: safe mode; "
            "install a bundle, or let the cloud assign one"
        )
    if not sound:
        return Read(SlotRecord(), 0, damaged, frozenset())
    sequence, record = max(sound.values(), key=lambda one: one[0])
    return Read(record, sequence, damaged, frozenset().union(*(one[1].named for one in sound.values())))


def sync(state_dir: Path, slot_set: str) -> None:
    """What is read is on the disk when this returns: whoever wrote it may have been killed before its flush."""
    folder = folder_of(state_dir, slot_set)
    with disk_errors(folder):
        for name in NAMES:
            if (folder / name).is_file() and not (folder / name).is_symlink():
                fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        if folder.is_dir():
            for place in (folder, folder.parent, state_dir):
                sync_folder(place)


def any_sound(state_dir: Path, slot_set: str) -> bool:
    """Is there a record that can be read?"""
    return any(isinstance(_load(folder_of(state_dir, slot_set) / name), tuple) for name in NAMES)


def write(state_dir: Path, slot_set: str, record: SlotRecord) -> int:
    """Make `record` the newest, on the disk when this returns; its sequence number. Where both are damaged it starts anew:
    that is how safe mode ends."""
    folder = folder_of(state_dir, slot_set)
    sound = {name: one[0] for name in NAMES if isinstance(one := _load(folder / name), tuple)}
    sequence = max(sound.values(), default=0) + 1
    newest = max(sound, key=lambda name: sound[name], default=NAMES[1])
    path = folder / NAMES[1 - NAMES.index(newest)]
    data = encode(sequence, record)
    with disk_errors(path):
        make_folder(folder)
        if path.is_symlink():  # somebody's, not ours: what it leads to is left alone
            path.unlink()
        made = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            written = os.pwrite(fd, data, 0)
            if written != len(data):
                raise OSError(f"only {written} of {len(data)} bytes were written")
            os.fsync(fd)
        finally:
            os.close(fd)
        if made:
            sync_folder(folder)
    return sequence


def write_end(state_dir: Path, slot_set: str, record: SlotRecord) -> None:
    """The same where something has come to its end: into both files, so that the loss of one later on brings nothing back."""
    write(state_dir, slot_set, record)
    write(state_dir, slot_set, record)


def encode(sequence: int, record: SlotRecord) -> bytes:
    """The bytes of a record file."""
    body = json.dumps(_plain(sequence, record), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    data = hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"
    if len(data) > RECORD_BYTES:
        raise BundleError(f"a slot record of {len(data)} bytes is over the limit of {RECORD_BYTES}")
    return data.ljust(RECORD_BYTES)


def decode(data: bytes) -> tuple[int, SlotRecord]:
    """Sequence number and record; ValueError says what is wrong."""
    if len(data) != RECORD_BYTES:
        raise ValueError(f"{len(data)} bytes, expected {RECORD_BYTES}")
    checksum, _, rest = data.partition(b"\n")
    body, _, _ = rest.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        raise ValueError("its checksum is wrong")
    try:
        value = json.loads(body)
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']}, expected {FORMAT}")
        record = SlotRecord(
            UpdateState(value["state"]),
            _job(value["job"]),
            _release(value["confirmed"]),
            _release(value["previous"]),
            {str(sha): _count(n) for sha, n in value["refused"].items()},
        )
        return _count(value["sequence"]), record
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a record: {type(error).__name__} {error}") from error


def _load(path: Path) -> tuple[int, SlotRecord] | str | None:
    """Sequence and record; or why it is damaged; None where there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        return str(error.strerror)
    try:
        with os.fdopen(fd, "rb") as file:
            return decode(file.read(RECORD_BYTES + 1))
    except (OSError, ValueError) as error:
        return str(error)


def _plain(sequence: int, record: SlotRecord) -> dict[str, Any]:
    job = record.job
    if job is not None:
        finite = {k: float(v) for k, v in job.measured.items() if math.isfinite(v)}
        measured = dict(list(finite.items())[:MEASURED_LIMIT])
        job = replace(job, reason=job.reason[:REASON_LIMIT], measured=measured)
    return {
        "format": FORMAT,
        "sequence": sequence,
        "state": record.state.value,
        "job": {**vars(job), "release": vars(job.release)} if job else None,
        "confirmed": vars(record.confirmed) if record.confirmed else None,
        "previous": vars(record.previous) if record.previous else None,
        "refused": dict(record.refused),
    }


def _release(value: Any) -> Release | None:
    if value is None:
        return None
    release = Release(**_known(Release, value))
    if not all(isinstance(text, str) for text in (release.sha256, release.digest, release.target)):
        raise ValueError("not a release")
    _count(release.index), _count(release.floor)
    return release


def _job(value: Any) -> Job | None:
    if value is None:
        return None
    release = _release(value["release"])
    if release is None:
        raise ValueError("an assignment without an artifact")
    measured = {str(k): float(v) for k, v in value["measured"].items()}
    job = Job(**{**_known(Job, value), "release": release, "measured": measured})
    for number in (job.counter, job.tries_left, job.size_bytes, job.since_ns):
        _count(number)
    if not isinstance(job.reason, str) or not isinstance(job.rollout, str) or type(job.checked) is not bool:
        raise ValueError("not an assignment")
    return job


def _known(kind: type, value: Mapping[str, Any]) -> dict[str, Any]:
    """Without what a newer runtime may have written beside it: after a rollback, this one goes on with its records."""
    return {f.name: value[f.name] for f in fields(kind) if f.name in value}


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= INT64_MAX:
        raise ValueError(f"{value!r} is not a count")
    return value
