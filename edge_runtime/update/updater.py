"""Updater: asks for the assignment and takes each slot set, step by step, to where it shall be. `plan` decides, `steps` acts.

- Killed at any instruction, it looks at records and store and goes on.
- What cannot be had now (network, line, room on the disk) is tried again later, and nobody is blamed. What is wrong with an
  artifact refuses its hash until there is a new assignment.
- What the device says of itself is made from the records each time: a lost message loses nothing.
- The caller holds `lock.writing` in every turn, and between turns as long as a trial runs (`on_trial`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge_runtime.errors import EndpointError, ResourceError
from edge_runtime.update import legacy, records, window
from edge_runtime.update.asking import Asking
from edge_runtime.update.gate import Candidate, StartedOutside
from edge_runtime.update.plan import Action, Facts, plan
from edge_runtime.update.records import SlotRecord
from edge_runtime.update.seams import Device, HaltError, Seams
from edge_runtime.update.steps import Steps
from edge_runtime.update.store import Store
from edge_runtime.update.telling import slot_status
from edge_runtime.wire.assignment import ITEMS_LIMIT
from edge_runtime.wire.update_status import SlotStatus, UpdateState, UpdateStatus

WATCH_S = 1.0
RETRY_S = 60.0
STEPS = 64  # of one turn; each moves a slot set on


class Updater:
    """`poll_s`: between two questions to the cloud, where it asks for nothing else. `store_bytes`: what all releases may take; 0:
    no limit."""

    def __init__(
        self, state_dir: Path, device: Device, seams: Seams, poll_s: float = 300.0, store_bytes: int = 0
    ) -> None:
        self._state_dir, self._device, self._seams, self._poll_s = state_dir, device, seams, poll_s
        self._store = Store(state_dir, store_bytes)
        self._asking = Asking(device, seams, poll_s, self._status_to_tell)
        self._steps = Steps(state_dir, self._store, seams, self._asking)
        self._retry_ns: dict[str, int] = {}
        self._settled = self._moved = False

    # ── turns ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def error(self) -> str:
        """Why the cloud gave no assignment when it was last asked; "" where it did."""
        return self._asking.error

    @property
    def on_trial(self) -> bool:
        return bool(self._steps.begun or self._steps.spent)

    @property
    def assigned(self) -> frozenset[str]:
        """The slot sets of the newest assignment."""
        return frozenset(self._asking.taken.assignment.items) if self._asking.taken else frozenset()

    @property
    def resting(self) -> bool:
        """Nothing moved in the last turn, and nothing of it is tried again soon."""
        return not (self._moved or self.on_trial or self._steps.back or self._retry_ns)

    @property
    def stuck(self) -> bool:
        """Nothing moved in the last turn and no trial runs: what is missing is outside, and is tried again later."""
        return not (self._moved or self._steps.begun)

    def ask_soon(self) -> None:
        self._asking.next_ns = 0
        self._retry_ns.clear()

    def turn(self) -> float:
        """All that can be done now; seconds until the next turn is worth it."""
        if not self._settled:
            self.settle()
        self._steps.revert()
        if self._asking.due:
            self._asking.ask()
        moved = False
        for _ in range(STEPS):
            if self._seams.stopping() or not self._pass():
                break
            moved = True
        self._moved = moved
        if moved and not self._seams.stopping():
            self._asking.ask()  # tells what has changed
            return 0.0
        return self._pause_s()

    def settle(self) -> None:
        """After a start: what an interruption has left is ended or cleaned."""
        legacy.migrate(self._state_dir)
        self._store.clean()
        for slot_set in records.slot_sets(self._state_dir):
            records.sync(self._state_dir, slot_set)
        for slot_set, record in self._steps.records().items():
            if record.state is UpdateState.ROLLED_BACK:
                self._steps.back.add(slot_set)
            if record.state is UpdateState.TRIAL and self._runs(slot_set, record):
                self._steps.begun.add(slot_set)
            if record.confirmed and self._store.problem(record.confirmed.sha256):
                self._steps.damaged.add(record.confirmed.sha256)
        self._raise_floor()
        self._steps.collect()
        self._steps.sweep()
        self._settled = True

    def _raise_floor(self) -> None:
        """What was confirmed says what may be taken from then on; also where a crash came in between."""
        for record in self._steps.records().values():
            if record.confirmed:
                self._seams.trust.raise_index(record.confirmed.floor)

    def _now_ns(self) -> int:
        return self._seams.clock.monotonic_ns()

    def _pause_s(self) -> float:
        due = [self._asking.next_ns, *self._retry_ns.values()]
        pause_s = max(0.0, (min(due) - self._now_ns()) / 1e9)
        return min(pause_s, WATCH_S) if self.on_trial or self._steps.back else pause_s

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
        return sorted({*records.slot_sets(self._state_dir), *self.assigned})

    def _step(self, slot_set: str) -> bool:
        record = self._steps.record(slot_set)
        step = plan(record, self._facts(slot_set, record))
        if step.action is Action.REST:
            if step.reason:
                self._steps.say(slot_set, step.reason)
            return False
        try:
            return self._steps.act(slot_set, record, step)
        except (EndpointError, ResourceError) as error:
            self._steps.say(slot_set, str(error))
            pause_s = min(RETRY_S, self._poll_s) * self._seams.rng.uniform(0.5, 1.0)
            self._retry_ns[slot_set] = self._now_ns() + round(pause_s * 1e9)
        except HaltError:
            self._asking.outdate()
        return False

    # ── what `plan` must know ───────────────────────────────────────────────────────────────────────────────────────

    def _facts(self, slot_set: str, record: SlotRecord) -> Facts:
        sha256, begun = record.job.release.sha256 if record.job else "", slot_set in self._steps.begun
        held = record.state in (UpdateState.STAGED, UpdateState.TRIAL) and not begun
        stored = held and not self._store.problem(sha256)
        damaged = record.confirmed is not None and record.confirmed.sha256 in self._steps.damaged
        facts = Facts(stored=stored, damaged=damaged, begun=begun, floor=self._seams.trust.floor.index)
        taken = self._asking.taken
        if taken is None:
            return facts
        assignment = taken.assignment
        item = assignment.items.get(slot_set)
        if item is None:
            return replace(facts, known=True, counter=assignment.counter)
        return replace(
            facts,
            known=True,
            counter=assignment.counter,
            item=item,
            refusal=taken.refused.get(slot_set) or self._misfit(slot_set, item.target),
            fresh=self._asking.fresh,
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

    # ── what is told ────────────────────────────────────────────────────────────────────────────────────────────────

    def _status_to_tell(self) -> UpdateStatus:
        """Told is what holds: the floor is on the disk first."""
        self._raise_floor()
        return self.status()

    def status(self) -> UpdateStatus:
        names = sorted(self._slot_sets(), key=lambda name: name not in self.assigned)[:ITEMS_LIMIT]
        return UpdateStatus(
            self._device.id,
            self._device.boot_id,
            self._device.hardware[0],
            self._seams.clock.wall_ns(),
            self._seams.trust.floor.versions,
            {name: self._told_of(name) for name in names},
        )

    def _told_of(self, slot_set: str) -> SlotStatus:
        steps = self._steps
        begun, waits = slot_set in steps.begun, steps.waits.get(slot_set, "")
        return slot_status(steps.record(slot_set), begun, steps.fetched.get(slot_set), waits)
