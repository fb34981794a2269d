"""`TrustedRepository`: what this device trusts of an update repository, and what it remembers of it.

    <state_dir>/trust/root.json            where trust begins: brought by enrolment or by hand, never written here
    <state_dir>/trust/metadata/            verified metadata, by python-tuf
    <state_dir>/trust/floor.0, floor.1     the version floor

- The root's bytes are passed at every refresh; what lies in `metadata/` is verified from them again each time.
- Time is the latest of: the clock; when the metadata were last found valid; the cloud's time as `link` heard it; the day of
  this release. A clock in 1970 is corrected. One that is ahead is believed: metadata then have expired for it, nothing new
  is installed, and what runs goes on.
- One process at a time works here: `update`.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_runtime.clock import Clock
from edge_runtime.durable import disk_errors, sync_folder
from edge_runtime.errors import BundleError, ConfigError
from edge_runtime.link import time_floor
from edge_runtime.update.tuf.assigned import Taken, assignment_keys, check_assignment, open_assignment, take
from edge_runtime.update.tuf.checked import CheckedUpdater
from edge_runtime.update.tuf.floor import Floor, FloorFiles
from edge_runtime.update.tuf.source import Source
from edge_runtime.update.tuf.target import Target, check_target, read_target
from edge_runtime.wire.target import assignment_print

FOLDER = "trust"
ROOT = "root.json"
METADATA = "metadata"
ROOT_LIMIT_BYTES = 512_000
#: the time alone is written down so often
KEEP_EVERY_NS = 3600 * 10**9


def root_bytes(state_dir: Path) -> bytes | None:
    """What trust begins with; None where this device is not managed."""
    path = state_dir / FOLDER / ROOT
    with disk_errors(path):
        if not path.is_file():
            return None
        if path.stat().st_size > ROOT_LIMIT_BYTES:
            raise ConfigError(f"{path}: larger than {ROOT_LIMIT_BYTES} bytes, expected the repository's root metadata")
        return path.read_bytes()


class TrustedRepository:
    """`floor` is what this device has seen at the highest. Everything else begins with `refresh`."""

    def __init__(
        self,
        folder: Path,
        root: bytes,
        source: Source,
        clock: Clock,
        least_ns: Callable[[], int],
        metadata: Path | None = None,
    ) -> None:
        """`least_ns`: the least that the time can be, by what others know. `metadata`: another folder for them."""
        self._metadata, self._root, self._source, self._clock = metadata or folder / METADATA, root, source, clock
        self._files, self._least_ns = FloorFiles(folder, self._metadata), least_ns
        self._valid_ns, self._valid_at_ns = self.floor.time_ns, clock.monotonic_ns()
        with disk_errors(folder):
            sync_folder(folder.parent)

    @classmethod
    def of(cls, state_dir: Path, source: Source, clock: Clock) -> TrustedRepository:
        """That of a device; ConfigError where it has no root yet."""
        root = root_bytes(state_dir)
        if root is None:
            raise ConfigError(
                f"{state_dir / FOLDER / ROOT}: missing, so there is nothing that trust could begin with; `gudgeon enroll` "
                "brings it where [update] url is set, or copy the repository's first root there"
            )
        path = state_dir / time_floor.FILE
        return cls(state_dir / FOLDER, root, source, clock, lambda: time_floor.TimeFloor(path, clock).now_ns())

    @property
    def floor(self) -> Floor:
        return self._files.floor

    def now_ns(self) -> int:
        since_ns = max(0, self._clock.monotonic_ns() - self._valid_at_ns)
        known_ns = self._valid_ns + since_ns if self._valid_ns else 0
        return max(self._clock.wall_ns(), known_ns, self._least_ns())

    def refresh(self) -> Targets:
        """The newest that the repository has, verified and on the disk. BundleError where something is refused,
        EndpointError where the repository cannot be reached."""
        now_ns = self.now_ns()
        updater = CheckedUpdater(self._metadata, self._root, self._source, self.floor, now_ns)
        try:
            updater.refresh()
        except BaseException:
            self._files.keep(updater.seen())
            raise
        seen, news_ns = updater.seen(), now_ns - self.floor.time_ns
        if seen != self.floor or news_ns >= KEEP_EVERY_NS:
            self._files.keep(replace(seen, time_ns=max(now_ns, self.floor.time_ns)))
        self._valid_ns, self._valid_at_ns = now_ns, self._clock.monotonic_ns()
        return Targets(self, updater)

    def confirmed(self, target: Target) -> None:
        """An artifact was confirmed: from now on none below its floor is taken. On the disk when this returns."""
        self.raise_index(target.floor)

    def raise_index(self, index: int) -> None:
        if index > self.floor.index:
            self._files.keep(replace(self.floor, index=index))

    def count(self, by: str, counter: int, named: Set[str]) -> None:
        """An assignment with this counter, by this key, was verified. `named`: all keys that may seal one now."""
        self._files.keep(self.floor.counted(by, counter, named))


@dataclass(frozen=True)
class Targets:
    """What was verified by one refresh. Metadata of delegated roles are fetched when they are first needed."""

    repository: TrustedRepository
    updater: CheckedUpdater
    _found: dict[str, Target] = field(default_factory=dict)

    def target(self, path: str) -> Target:
        """What is signed for this path; BundleError where nothing is, or it is not as it must be."""
        if path not in self._found:
            info = self.updater.look_up(path)
            if info is None:
                raise BundleError(f"target {path[:200]!r}: not in the repository's signed targets; refused")
            custom = info.custom
            self._found[path] = read_target(path, info.length, info.hashes.get("sha256"), custom)
        return self._found[path]

    def admitted(self, path: str, hardware: Set[str]) -> Target:
        """The same, if this device may take it."""
        target = self.target(path)
        check_target(target, hardware, self.repository.floor.index)
        return target

    def take(self, payload: bytes, device: str, hardware: Set[str]) -> Taken:
        """A sealed assignment, verified; its counter is on the disk when this returns. BundleError where it is refused
        whole; EndpointError where metadata of a delegated role cannot be had."""
        entries = self.updater.top_level.targets.items()
        keys = assignment_keys((path, info.hashes.get("sha256"), info.custom) for path, info in entries)
        assignment, by = open_assignment(payload, keys)
        named, repository = {assignment_print(key) for key in keys}, self.repository
        check_assignment(assignment, device, repository.floor.counter(named), repository.now_ns())
        taken, refused = take(assignment, self.target, hardware, repository.floor.index)
        repository.count(assignment_print(by), assignment.counter, named)
        return Taken(assignment, taken, refused)


def own_hardware(configured: str = "") -> frozenset[str]:
    """The classes that this device is of: what the kernel says, and what was configured for it."""
    return frozenset({platform.machine() or "unknown", *([configured] if configured else [])})
