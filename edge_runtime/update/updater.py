"""Updater: asks for the assignment and takes each slot set, step by step, to where it shall be. `plan` decides, this acts.

- Every step is one durable change, written before it is acted on: a try is spent before a candidate starts, a hash is refused
  before the old release comes back. Killed at any instruction, it looks at records and store and goes on.
- What cannot be had now (network, line, room on the disk) is tried again later, and nobody is blamed. What is wrong with an
  artifact refuses its hash until there is a new assignment.
- What the device says of itself is made from the records each time: a lost message loses nothing.
- The caller holds `lock.writing` in every turn, and between turns as long as a trial runs (`on_trial`).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from edge_runtime import log
from edge_runtime.backoff import Backoff
from edge_runtime.clock import Clock
from edge_runtime.errors import BundleError, EndpointError, GudgeonError, ResourceError
from edge_runtime.update import legacy, records, slots, states, window
from edge_runtime.update.cloud_port import CloudPort
from edge_runtime.update.fetch.partial import sweep
from edge_runtime.update.gate import Candidate, Gate, StartedOutside, Verdict
from edge_runtime.update.plan import PENDING, Action, Facts, Step, plan
from edge_runtime.update.records import Job, Release, SlotRecord
from edge_runtime.update.store import Store
from edge_runtime.update.telling import STREAM, event_body, slot_status
from edge_runtime.update.tuf.assigned import Taken
from edge_runtime.update.tuf.repository import TrustedRepository
from edge_runtime.update.tuf.target import Target
from edge_runtime.wire import archive, manifest
from edge_runtime.wire.assignment import ITEMS_LIMIT
from edge_runtime.wire.update_status import ENDED, SlotStatus, UpdateState, UpdateStatus

DOWNLOADS = Path("update") / "download"
FRESH_S = 20.0
WATCH_S = 1.0
STEPS = 64  # of one turn; each moves a slot set on
FIRST_RETRY_S = 5.0

#: stream, kind, body of an Event
Item = tuple[str, str, Mapping[str, object]]
#: bytes that are there, and those that there will be
Progress = Callable[[int, int], None]


class Get(Protocol):
    """Fetches an artifact, whole, with the hash that was signed. `have`: releases in the store, by hash, for deltas."""

    def __call__(self, target: Target, have: Mapping[str, Path], progress: Progress) -> Path: ...


class HaltError(Exception):
    """The updater shall end now, or what it fetches is no longer wanted."""


@dataclass(frozen=True)
class Device:
    """`hardware`: the classes that it is of, the first one is what it is told as."""

    id: str
    boot_id: str
    hardware: Sequence[str]


@dataclass
class Seams:
    """Everything outside. `gate`: of a slot set, None where this device has no such slot set. `tell`: Events. `stopping`: asked
    in the middle of what takes long."""

    cloud: CloudPort
    trust: TrustedRepository
    get: Get
    gate: Callable[[str], Gate | None]
    clock: Clock
    tell: Callable[[Item], None] = lambda item: None
    stopping: Callable[[], bool] = lambda: False
    rng: random.Random = field(default_factory=random.Random)


class Updater:
    def __init__(
        self, state_dir: Path, device: Device, seams: Seams, poll_s: float = 300.0, store_bytes: int = 0
    ) -> None:
        self._state_dir, self._device, self._seams, self._poll_s = state_dir, device, seams, poll_s
        self._store = Store(state_dir, store_bytes)
        self._taken: Taken | None = None
        self._asked_ns = self._next_ask_ns = 0
        self._stale = True  # since the cloud was asked, something took long
        self._begun: set[str] = set()  # on trial, and started by this process
        self._spent: set[str] = set()  # a try is spent, and the candidate could not be started yet
        self._back: set[str] = set()  # the gate must still be told to go back
        self._fetched: dict[str, tuple[int, int]] = {}
        self._waits: dict[str, str] = {}
        self._retry_ns: dict[str, int] = {}
        self._damaged: set[str] = set()  # confirmed, and not whole in the store
        self._backoff = Backoff(FIRST_RETRY_S, max(FIRST_RETRY_S, poll_s), seams.rng)
        self._settled = self._moved = False
        self.error = ""

    # ── turns ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def on_trial(self) -> bool:
        return bool(self._begun or self._spent)

    @property
    def assigned(self) -> frozenset[str]:
        """The slot sets of the newest assignment."""
        return frozenset(self._taken.assignment.items) if self._taken else frozenset()

    @property
    def resting(self) -> bool:
        """Nothing moved in the last turn, and nothing of it is tried again soon."""
        return not (self._moved or self._begun or self._spent or self._back or self._retry_ns)

    def ask_soon(self) -> None:
        self._next_ask_ns = 0
        self._retry_ns.clear()

    def turn(self) -> float:
        """All that can be done now; seconds until the next turn is worth it."""
        if not self._settled:
            self.settle()
        self._go_back_again()
        if self._now_ns() >= self._next_ask_ns:
            self._ask()
        moved = False
        for _ in range(STEPS):
            if self._seams.stopping() or not self._pass():
                break
            moved = True
        self._moved = moved
        if moved and not self._seams.stopping():
            self._ask()  # tells what has changed
            return 0.0
        return self._pause_s()

    def settle(self) -> None:
        """After a start: what an interruption has left is ended or cleaned."""
        legacy.migrate(self._state_dir)
        self._store.clean()
        for slot_set in records.slot_sets(self._state_dir):
            records.sync(self._state_dir, slot_set)
        for slot_set, record in self._records().items():
            if record.state is UpdateState.ROLLED_BACK:
                self._back.add(slot_set)
            if record.state is UpdateState.TRIAL and self._runs(slot_set, record):
                self._begun.add(slot_set)
            if record.confirmed and self._store.problem(record.confirmed.sha256):
                self._damaged.add(record.confirmed.sha256)
        self._raise_floor()
        self._collect()
        self._sweep()
        self._settled = True

    def _raise_floor(self) -> None:
        """What was confirmed says what may be taken from then on; also where a crash came in between."""
        for record in self._records().values():
            if record.confirmed:
                self._seams.trust.raise_index(record.confirmed.floor)

    def _now_ns(self) -> int:
        return self._seams.clock.monotonic_ns()

    def _pause_s(self) -> float:
        due = [self._next_ask_ns, *self._retry_ns.values()]
        pause_s = max(0.0, (min(due) - self._now_ns()) / 1e9)
        return min(pause_s, WATCH_S) if self._begun or self._spent or self._back else pause_s

    def _pass(self) -> bool:
        """One step in each slot set; False where nothing moved."""
        moved = False
        for slot_set in self._slot_sets():
            if self._retry_ns.get(slot_set, 0) > self._now_ns():
                continue
            self._retry_ns.pop(slot_set, None)
            moved |= self._step(slot_set)
        return moved

    def _slot_sets(self) -> list[str]:
        assigned = self._taken.assignment.items if self._taken else {}
        return sorted({*records.slot_sets(self._state_dir), *assigned})

    def _records(self) -> dict[str, SlotRecord]:
        """Those that can be read. One that cannot is in safe mode; an assignment ends that."""
        found = {}
        for slot_set in records.slot_sets(self._state_dir):
            try:
                found[slot_set] = records.read(self._state_dir, slot_set).record
            except BundleError as error:
                self._say(slot_set, str(error))
        return found

    def _record(self, slot_set: str) -> SlotRecord:
        try:
            return records.read(self._state_dir, slot_set).record
        except BundleError:
            return SlotRecord()

    def _write(self, slot_set: str, record: SlotRecord) -> None:
        ended = record.state in ENDED or record.state is UpdateState.IDLE
        (records.write_end if ended else records.write)(self._state_dir, slot_set, record)

    # ── the cloud ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _ask(self) -> None:
        """Tell the status, and take the assignment that comes. Without an answer the last one counts as not fresh."""
        try:
            self._raise_floor()
            answer = self._seams.cloud.ask(self.status())
            self._take(answer.assignment)
        except GudgeonError as error:
            self.error = str(error)
            self._stale = True
            if isinstance(error, BundleError):
                self._taken = None  # what came is not believed: nothing is known to be asked for
            log.say(logging.WARNING, "no assignment", reason=self.error)
            self._next_ask_ns = self._now_ns() + round(self._backoff.next_s() * 1e9)
            return
        self.error = ""
        self._backoff.reset()
        self._asked_ns, self._stale = self._now_ns(), False
        pause_s = (answer.poll_after_s or self._poll_s) * self._seams.rng.uniform(0.8, 1.2)
        self._next_ask_ns = self._asked_ns + round(pause_s * 1e9)

    def _take(self, sealed: bytes | None) -> None:
        if sealed is None:
            self._taken = None
            return
        targets = self._seams.trust.refresh()
        self._taken = targets.take(sealed, self._device.id, frozenset(self._device.hardware))

    def status(self) -> UpdateStatus:
        names = sorted(self._slot_sets(), key=lambda name: name not in self.assigned)[:ITEMS_LIMIT]
        taken = {name: self._told_of(name) for name in names}
        floor = self._seams.trust.floor.versions
        return UpdateStatus(
            self._device.id, self._device.boot_id, self._device.hardware[0], self._seams.clock.wall_ns(), floor, taken
        )

    def _told_of(self, slot_set: str) -> SlotStatus:
        record, waits = self._record(slot_set), self._waits.get(slot_set, "")
        return slot_status(record, slot_set in self._begun, self._fetched.get(slot_set), waits)

    # ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _step(self, slot_set: str) -> bool:
        record = self._record(slot_set)
        step = plan(record, self._facts(slot_set, record))
        if step.action is Action.REST:
            self._wait(slot_set, step.reason)
            return False
        try:
            return self._act(slot_set, record, step)
        except (EndpointError, ResourceError) as error:
            self._later(slot_set, str(error))
        except HaltError:
            self._stale = True
        return False

    def _facts(self, slot_set: str, record: SlotRecord) -> Facts:
        sha256 = record.job.release.sha256 if record.job else ""
        held = record.state in (UpdateState.STAGED, UpdateState.TRIAL) and slot_set not in self._begun
        stored = held and not self._store.problem(sha256)
        damaged = record.confirmed is not None and record.confirmed.sha256 in self._damaged
        facts = Facts(
            stored=stored, damaged=damaged, begun=slot_set in self._begun, floor=self._seams.trust.floor.index
        )
        if self._taken is None:
            return facts
        assignment = self._taken.assignment
        item = assignment.items.get(slot_set)
        if item is None:
            return replace(facts, known=True, counter=assignment.counter)
        return replace(
            facts,
            known=True,
            counter=assignment.counter,
            item=item,
            refusal=self._taken.refused.get(slot_set) or self._misfit(slot_set, item.target),
            fresh=not self._stale and self._now_ns() - self._asked_ns <= FRESH_S * 1e9,
            window=window.closed(item.window, assignment, self._seams.clock.wall_ns()),
        )

    def _runs(self, slot_set: str, record: SlotRecord) -> bool:
        """Was this process started by what is on trial?"""
        gate = self._seams.gate(slot_set)
        if not isinstance(gate, StartedOutside) or record.job is None:
            return False
        release = record.job.release
        return gate.runs(Candidate(slot_set, self._store.path(release.sha256), release.digest, release.sha256))

    def _misfit(self, slot_set: str, target: str) -> str:
        expected = slot_set if slot_set in ("runtime", "config") else "models"
        if not target.startswith(f"{expected}/"):
            return f"slot set {slot_set} takes {expected}/… only"
        return "" if self._seams.gate(slot_set) else f"this device has no slot set {slot_set}"

    def _act(self, slot_set: str, record: SlotRecord, step: Step) -> bool:
        """Do one step; True where it moved something."""
        act: Mapping[Action, Callable[[str, SlotRecord, str], bool]] = {
            Action.ASK: self._do_ask, Action.TAKE: self._do_take, Action.RENEW: self._do_renew, Action.ADOPT: self._do_adopt,
            Action.DROP: self._do_drop, Action.REFUSE: self._do_refuse, Action.FETCH: self._do_fetch,
            Action.CHECK: self._do_check, Action.BEGIN: self._do_begin, Action.WATCH: self._do_watch,
            Action.ROLL_BACK: self._do_roll_back, Action.GO_BACK: self._do_go_back,
        }  # fmt: skip
        moved = act[step.action](slot_set, record, step.reason)
        if moved:
            self._waits.pop(slot_set, None)
            self._retry_ns.pop(slot_set, None)
        return moved

    def _do_ask(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        self._ask()
        if self._stale:
            self._later(slot_set, "the cloud must be asked again right before the start, and does not answer")
        return not self._stale

    def _job(self, slot_set: str) -> Job:
        assert self._taken is not None
        item, target = self._taken.assignment.items[slot_set], self._taken.targets.get(slot_set)
        release = Release(item.sha256, target=item.target)
        if target is not None:
            release = Release(item.sha256, target.digest, item.target, target.index, target.floor)
        size = target.length if target else 0
        return Job(
            release,
            item.rollout,
            self._taken.assignment.counter,
            states.TRIES,
            size_bytes=size,
            since_ns=self._wall_ns(),
        )

    def _wall_ns(self) -> int:
        return max(0, self._seams.clock.wall_ns())

    def _do_take(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        self._fetched.pop(slot_set, None)
        job = self._job(slot_set)
        self._write(slot_set, states.take(record, job))
        self._tell(slot_set, "update_assigned", job)
        return True

    def _do_renew(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        assert self._taken is not None
        assert record.job is not None
        item = self._taken.assignment.items[slot_set]
        self._write(
            slot_set,
            replace(record, job=replace(record.job, rollout=item.rollout, counter=self._taken.assignment.counter)),
        )
        return True

    def _do_adopt(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        """It is confirmed already: nothing changes but by which assignment it is there."""
        job = self._job(slot_set)
        if record.job and record.job.release.sha256 == job.release.sha256:
            job = replace(job, measured=record.job.measured)
            if record.state in PENDING:
                self._back.add(slot_set)  # it was damaged and is whole again
        known = record.confirmed if not job.release.index else job.release
        self._write(slot_set, replace(record, state=UpdateState.CONFIRMED, job=job, confirmed=known))
        return True

    def _do_drop(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        self._write(slot_set, states.drop(record))
        self._collect()
        return True

    def _do_refuse(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        """Assigned, and not to be had by this device."""
        job = self._job(slot_set)
        self._refuse(slot_set, states.take(record, job), reason)
        return True

    def _refuse(
        self, slot_set: str, record: SlotRecord, reason: str, measured: Mapping[str, float] | None = None
    ) -> None:
        record = states.refuse(record, reason, measured, self._wall_ns())
        self._write(slot_set, record)
        self._tell(slot_set, "update_refused", record.job)
        self._collect()

    def _do_fetch(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        assert self._taken is not None
        target = self._taken.targets[slot_set]
        try:
            self._fetch(slot_set, target)
        except (BundleError, ValueError) as error:
            self._refuse(slot_set, record, str(error))
            return True
        record = states.staged(record)
        job = replace(record.job, since_ns=self._wall_ns()) if record.job else None
        self._write(slot_set, replace(record, job=job))
        self._tell(slot_set, "update_installed", job)
        return True

    def _fetch(self, slot_set: str, target: Target) -> None:
        path = self._store.path(target.sha256)
        self._stale = True
        if self._store.problem(target.sha256):
            self._collect()
            self._sweep()
            self._store.ask_room(target.length)
            have = {sha256: self._store.path(sha256) for sha256 in self._store.names()}
            file = self._seams.get(target, have, lambda held, of: self._progress(slot_set, held, of))
            self._store.put(target.sha256, lambda into: archive.unpack(file, into, target.length))
            self._damaged.discard(target.sha256)
            self._sweep()
        found = manifest.digest((path / manifest.MANIFEST).read_bytes())
        if target.digest and found != target.digest:
            raise BundleError(f"{target.path}: its manifest has digest {found[:12]}, {target.digest[:12]} was signed")

    def _progress(self, slot_set: str, held: int, of: int) -> None:
        """Told from within a download: it may be no longer wanted, and it shall not keep the updater from ending."""
        self._fetched[slot_set] = held, of
        if self._seams.stopping():
            raise HaltError
        if self._now_ns() >= self._next_ask_ns:
            before = self._taken.assignment.items.get(slot_set) if self._taken else None
            self._ask()
            now = self._taken.assignment.items.get(slot_set) if self._taken else None
            if not self.error and (now is None or before is None or now.sha256 != before.sha256 or now.go == "revert"):
                raise HaltError
            self._stale = True

    def _candidate(self, slot_set: str, release: Release) -> Candidate:
        path = self._store.path(release.sha256)
        digest = release.digest or manifest.digest((path / manifest.MANIFEST).read_bytes())
        return Candidate(slot_set, path, digest, release.sha256)

    def _gate(self, slot_set: str) -> Gate:
        gate = self._seams.gate(slot_set)
        if gate is None:
            raise EndpointError(f"this device has no slot set {slot_set} any more; name it in the configuration again")
        return gate

    def _do_check(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        assert record.job is not None
        self._stale = True
        try:
            verdict = self._gate(slot_set).check(self._candidate(slot_set, record.job.release))
        except BundleError as error:
            verdict = Verdict(False, str(error))
        if not verdict.ok:
            self._refuse(slot_set, record, verdict.reason, verdict.measured)
            return True
        job = replace(record.job, checked=True, measured={**record.job.measured, **verdict.measured})
        self._write(slot_set, replace(record, job=job))
        return True

    def _do_begin(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        """The try is spent before the candidate starts. Where it could not be started, that try is used again."""
        if slot_set not in self._spent:
            outside = isinstance(self._seams.gate(slot_set), StartedOutside)
            record = (states.hand_over if outside else states.try_once)(record, self._wall_ns())
            self._write(slot_set, record)
            self._spent.add(slot_set)
        assert record.job is not None
        try:
            self._gate(slot_set).begin(self._candidate(slot_set, record.job.release))
        except BundleError as error:
            return self._do_roll_back(slot_set, record, str(error))
        self._spent.discard(slot_set)
        self._begun.add(slot_set)
        self._tell(slot_set, "update_running", record.job)
        return True

    def _do_watch(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        assert record.job is not None
        verdict = self._gate(slot_set).trial(self._candidate(slot_set, record.job.release))
        if verdict is None:
            return False
        if not verdict.ok:
            return self._do_roll_back(slot_set, record, verdict.reason, verdict.measured)
        record = states.confirm(record, verdict.measured, self._wall_ns())
        self._write(slot_set, record)
        self._begun.discard(slot_set)
        assert record.confirmed is not None
        self._seams.trust.raise_index(record.confirmed.floor)
        self._tell(slot_set, "update_confirmed", record.job)
        self._collect()
        return True

    def _do_roll_back(
        self, slot_set: str, record: SlotRecord, reason: str, measured: Mapping[str, float] | None = None
    ) -> bool:
        record = states.roll_back(record, reason, measured, self._wall_ns())
        self._went_back(slot_set, record)
        return True

    def _do_go_back(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        assert record.previous is not None
        assert self._taken is not None
        if problem := self._store.problem(record.previous.sha256):
            self._later(slot_set, f"asked to go back, but {problem}")
            return False
        self._went_back(slot_set, states.go_back(record, reason, self._taken.assignment.counter, self._wall_ns()))
        return True

    def _went_back(self, slot_set: str, record: SlotRecord) -> None:
        self._write(slot_set, record)
        self._begun.discard(slot_set)
        self._spent.discard(slot_set)
        self._back.add(slot_set)
        self._tell(slot_set, "update_rolled_back", record.job)
        self._go_back_again()
        self._collect()

    def _go_back_again(self) -> None:
        for slot_set in sorted(self._back):
            confirmed = self._record(slot_set).confirmed
            try:
                self._gate(slot_set).revert(self._candidate(slot_set, confirmed) if confirmed else None)
            except (GudgeonError, OSError) as error:
                self._say(slot_set, f"not back at what is confirmed yet: {error}")
                continue
            self._back.discard(slot_set)

    def _sweep(self) -> None:
        """Remove what was fetched of anything that is not fetched any more."""
        wanted = [r.job for r in self._records().values() if r.state is UpdateState.DOWNLOADING and r.job]
        keep = {job.release.sha256 for job in wanted if self._store.problem(job.release.sha256)}
        sweep(self._state_dir / DOWNLOADS, keep)

    def _collect(self) -> None:
        keep = slots.named(self._state_dir)
        if keep is not None:
            self._store.collect(keep)

    # ── told ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _later(self, slot_set: str, reason: str) -> None:
        self._say(slot_set, reason)
        self._retry_ns[slot_set] = self._now_ns() + round(
            min(60.0, self._poll_s) * self._seams.rng.uniform(0.5, 1.0) * 1e9
        )

    def _wait(self, slot_set: str, reason: str) -> None:
        if reason:
            self._say(slot_set, reason)

    def _say(self, slot_set: str, reason: str) -> None:
        if self._waits.get(slot_set) != reason:
            log.say(logging.INFO, "update waits", slot_set=slot_set, reason=reason)
        self._waits[slot_set] = reason

    def _tell(self, slot_set: str, kind: str, job: Job | None) -> None:
        if job is None:
            return
        log.say(logging.INFO, kind.replace("_", " "), slot_set=slot_set, target=job.release.target, reason=job.reason)
        self._seams.tell((STREAM, kind, event_body(slot_set, job)))
