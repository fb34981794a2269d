"""The steps of an assignment in one slot set, by the names that `plan` has for them: `Steps.act` does one.

Each is one durable change, written before it is acted on: a try is spent before a candidate starts, a hash is refused before the
old release comes back. What cannot be had now is an EndpointError or a ResourceError, and the step is done again later; what is
wrong with an artifact refuses its hash. Nothing here decides what comes next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from edge_runtime import log
from edge_runtime.errors import BundleError, EndpointError, GudgeonError, ResourceError
from edge_runtime.update import records, slots, states
from edge_runtime.update.asking import Asking
from edge_runtime.update.fetch.partial import sweep
from edge_runtime.update.gate import Candidate, Gate, StartedOutside, Verdict
from edge_runtime.update.plan import PENDING, Action, Step
from edge_runtime.update.records import Job, Release, SlotRecord
from edge_runtime.update.seams import DOWNLOADS, HaltError, Seams
from edge_runtime.update.store import Store
from edge_runtime.update.telling import STREAM, event_body
from edge_runtime.update.tuf.target import Target
from edge_runtime.wire import archive, manifest
from edge_runtime.wire.update_status import ENDED, UpdateState


class Steps:
    """What this process knows beside the records: `begun`, on trial and started by it; `spent`, a try is spent and the candidate
    could not be started yet; `back`, the gate must still be told to go back; `damaged`, confirmed and not whole in the store;
    `fetched`, bytes of how many; `waits`, why nothing moves."""

    def __init__(self, state_dir: Path, store: Store, seams: Seams, asking: Asking) -> None:
        self._state_dir, self._store, self._seams, self._asking = state_dir, store, seams, asking
        self.begun: set[str] = set()
        self.spent: set[str] = set()
        self.back: set[str] = set()
        self.damaged: set[str] = set()
        self.fetched: dict[str, tuple[int, int]] = {}
        self.waits: dict[str, str] = {}
        self._actions: Mapping[Action, Callable[[str, SlotRecord, str], bool]] = {
            Action.ASK: self._ask, Action.TAKE: self._take, Action.RENEW: self._renew, Action.ADOPT: self._adopt,
            Action.DROP: self._drop, Action.REFUSE: self._refuse, Action.FETCH: self._fetch, Action.CHECK: self._check,
            Action.BEGIN: self._begin, Action.WATCH: self._watch, Action.ROLL_BACK: self._roll_back,
            Action.GO_BACK: self._go_back,
        }  # fmt: skip

    def act(self, slot_set: str, record: SlotRecord, step: Step) -> bool:
        """Do one step; True where it moved something. HaltError where it is no longer wanted."""
        moved = self._actions[step.action](slot_set, record, step.reason)
        if moved:
            self.waits.pop(slot_set, None)
        return moved

    # ── before the trial ────────────────────────────────────────────────────────────────────────────────────────────

    def _ask(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        if not self._asking.ask():
            raise EndpointError("the cloud must be asked again right before the start, and does not answer")
        return True

    def _take(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        self.fetched.pop(slot_set, None)
        job = self._job(slot_set)
        self._write(slot_set, states.take(record, job))
        self._tell(slot_set, "update_assigned", job)
        return True

    def _renew(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        assert record.job
        assert self._asking.taken
        assignment = self._asking.taken.assignment
        job = replace(record.job, rollout=assignment.items[slot_set].rollout, counter=assignment.counter)
        self._write(slot_set, replace(record, job=job))
        return True

    def _adopt(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        """It is confirmed already: nothing changes but by which assignment it is there."""
        job = self._job(slot_set)
        if record.job and record.job.release.sha256 == job.release.sha256:
            job = replace(job, measured=record.job.measured)
            if record.state in PENDING:
                self.back.add(slot_set)  # it was damaged and is whole again
        known = record.confirmed if not job.release.index else job.release
        self._write(slot_set, replace(record, state=UpdateState.CONFIRMED, job=job, confirmed=known))
        return True

    def _drop(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        self._write(slot_set, states.drop(record))
        self.collect()
        return True

    def _refuse(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        """Assigned, and not to be had by this device."""
        return self._refused(slot_set, states.take(record, self._job(slot_set)), Verdict(False, reason))

    def _refused(self, slot_set: str, record: SlotRecord, verdict: Verdict) -> bool:
        record = states.refuse(record, verdict.reason, verdict.measured, self._wall_ns())
        self._write(slot_set, record)
        self._tell(slot_set, "update_refused", record.job)
        self.collect()
        return True

    def _fetch(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        assert self._asking.taken
        try:
            self._get(slot_set, self._asking.taken.targets[slot_set])
        except (BundleError, ValueError) as error:
            return self._refused(slot_set, record, Verdict(False, str(error)))
        record = states.staged(record)
        job = replace(record.job, since_ns=self._wall_ns()) if record.job else None
        self._write(slot_set, replace(record, job=job))
        self._tell(slot_set, "update_installed", job)
        return True

    def _get(self, slot_set: str, target: Target) -> None:
        path = self._store.path(target.sha256)
        self._asking.outdate()
        if self._store.problem(target.sha256):
            self.collect()
            self.sweep()
            self._store.ask_room(target.length)
            have = {sha256: self._store.path(sha256) for sha256 in self._store.names()}
            file = self._seams.get(target, have, lambda held, of: self._progress(slot_set, held, of))
            self._store.put(target.sha256, lambda into: archive.unpack(file, into, target.length))
            self.damaged.discard(target.sha256)
            self.sweep()
        found = manifest.digest((path / manifest.MANIFEST).read_bytes())
        if target.digest and found != target.digest:
            raise BundleError(f"{target.path}: its manifest has digest {found[:12]}, {target.digest[:12]} was signed")

    def _progress(self, slot_set: str, held: int, of: int) -> None:
        """Told from within a download: it may be no longer wanted, and it shall not keep the updater from ending."""
        self.fetched[slot_set] = held, of
        if self._seams.stopping():
            raise HaltError
        if self._asking.due:
            before = self._asking.item(slot_set)
            self._asking.ask()
            now = self._asking.item(slot_set)
            changed = now is None or before is None or now.sha256 != before.sha256 or now.go == "revert"
            if changed and not self._asking.error:
                raise HaltError
            self._asking.outdate()

    def _check(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        assert record.job
        self._asking.outdate()
        try:
            verdict = self._gate(slot_set).check(self._candidate(slot_set, record.job.release))
        except BundleError as error:
            verdict = Verdict(False, str(error))
        if not verdict.ok:
            return self._refused(slot_set, record, verdict)
        job = replace(record.job, checked=True, measured={**record.job.measured, **verdict.measured})
        self._write(slot_set, replace(record, job=job))
        return True

    # ── the trial, and the ways back ────────────────────────────────────────────────────────────────────────────────

    def _begin(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        """The try is spent before the candidate starts. Where it could not be started, that try is used again."""
        if slot_set not in self.spent:
            outside = isinstance(self._seams.gate(slot_set), StartedOutside)
            record = (states.hand_over if outside else states.try_once)(record, self._wall_ns())
            self._write(slot_set, record)
            self.spent.add(slot_set)
        assert record.job
        try:
            self._gate(slot_set).begin(self._candidate(slot_set, record.job.release))
        except BundleError as error:
            return self._roll_back(slot_set, record, str(error))
        self.spent.discard(slot_set)
        self.begun.add(slot_set)
        self._tell(slot_set, "update_running", record.job)
        return True

    def _watch(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        assert record.job
        verdict = self._gate(slot_set).trial(self._candidate(slot_set, record.job.release))
        if verdict is None:
            return False
        if not verdict.ok:
            return self._roll_back(slot_set, record, verdict.reason, verdict.measured)
        record = states.confirm(record, verdict.measured, self._wall_ns())
        self._write(slot_set, record)
        self.begun.discard(slot_set)
        assert record.confirmed
        self._seams.trust.raise_index(record.confirmed.floor)
        self._tell(slot_set, "update_confirmed", record.job)
        self.collect()
        return True

    def _roll_back(
        self, slot_set: str, record: SlotRecord, reason: str, measured: Mapping[str, float] | None = None
    ) -> bool:
        return self._went_back(slot_set, states.roll_back(record, reason, measured, self._wall_ns()))

    def _go_back(self, slot_set: str, record: SlotRecord, reason: str) -> bool:
        """What was confirmed is taken back by the cloud, for what was confirmed before it."""
        assert record.previous
        assert self._asking.taken
        if problem := self._store.problem(record.previous.sha256):
            raise ResourceError(f"asked to go back, but {problem}")
        counter = self._asking.taken.assignment.counter
        return self._went_back(slot_set, states.go_back(record, reason, counter, self._wall_ns()))

    def _went_back(self, slot_set: str, record: SlotRecord) -> bool:
        self._write(slot_set, record)
        self.begun.discard(slot_set)
        self.spent.discard(slot_set)
        self.back.add(slot_set)
        self._tell(slot_set, "update_rolled_back", record.job)
        self.revert()
        self.collect()
        return True

    def revert(self) -> None:
        """Have every gate that must still go back do so; where one cannot now, it is asked again in the next turn."""
        for slot_set in sorted(self.back):
            confirmed = self.record(slot_set).confirmed
            try:
                self._gate(slot_set).revert(self._candidate(slot_set, confirmed) if confirmed else None)
            except (GudgeonError, OSError) as error:
                self.say(slot_set, f"not back at what is confirmed yet: {error}")
                continue
            self.back.discard(slot_set)

    # ── records, and what they no longer need ───────────────────────────────────────────────────────────────────────

    def record(self, slot_set: str) -> SlotRecord:
        """An empty one where it cannot be read: that is safe mode, and an assignment ends it."""
        try:
            return records.read(self._state_dir, slot_set).record
        except BundleError:
            return SlotRecord()

    def records(self) -> dict[str, SlotRecord]:
        """Those that can be read."""
        found = {}
        for slot_set in records.slot_sets(self._state_dir):
            try:
                found[slot_set] = records.read(self._state_dir, slot_set).record
            except BundleError as error:
                self.say(slot_set, str(error))
        return found

    def _write(self, slot_set: str, record: SlotRecord) -> None:
        ended = record.state in ENDED or record.state is UpdateState.IDLE
        (records.write_end if ended else records.write)(self._state_dir, slot_set, record)

    def collect(self) -> None:
        """Remove the releases that no record names."""
        keep = slots.named(self._state_dir)
        if keep is not None:
            self._store.collect(keep)

    def sweep(self) -> None:
        """Remove what was fetched of anything that is not fetched any more."""
        wanted = [r.job for r in self.records().values() if r.state is UpdateState.DOWNLOADING and r.job]
        keep = {job.release.sha256 for job in wanted if self._store.problem(job.release.sha256)}
        sweep(self._state_dir / DOWNLOADS, keep)

    # ── parts of steps ──────────────────────────────────────────────────────────────────────────────────────────────

    def _job(self, slot_set: str) -> Job:
        """What is assigned now, as it begins."""
        assert self._asking.taken
        assignment, target = self._asking.taken.assignment, self._asking.taken.targets.get(slot_set)
        item = assignment.items[slot_set]
        release = Release(item.sha256, target=item.target)
        if target is not None:
            release = Release(item.sha256, target.digest, item.target, target.index, target.floor)
        size_bytes = target.length if target else 0
        return Job(
            release, item.rollout, assignment.counter, states.TRIES, size_bytes=size_bytes, since_ns=self._wall_ns()
        )

    def _candidate(self, slot_set: str, release: Release) -> Candidate:
        path = self._store.path(release.sha256)
        digest = release.digest or manifest.digest((path / manifest.MANIFEST).read_bytes())
        return Candidate(slot_set, path, digest, release.sha256)

    def _gate(self, slot_set: str) -> Gate:
        gate = self._seams.gate(slot_set)
        if gate is None:
            raise EndpointError(f"this device has no slot set {slot_set} any more; name it in the configuration again")
        return gate

    def _wall_ns(self) -> int:
        return max(0, self._seams.clock.wall_ns())

    def say(self, slot_set: str, reason: str) -> None:
        """Why nothing moves: with each status, and in the log once."""
        if self.waits.get(slot_set) != reason:
            log.say(logging.INFO, "update waits", slot_set=slot_set, reason=reason)
        self.waits[slot_set] = reason

    def _tell(self, slot_set: str, kind: str, job: Job | None) -> None:
        if job is None:
            return
        log.say(logging.INFO, kind.replace("_", " "), slot_set=slot_set, target=job.release.target, reason=job.reason)
        self._seams.tell((STREAM, kind, event_body(slot_set, job)))
