"""A device as a rollout sees it, in memory: it takes assignments and goes through the states of an update. For simulations.

Fates: `good`; `bad` (its health gate finds the artifact bad, it rolls back); `silent` (never heard of again once it has it on
trial); `refuses` (as often as `refusals` says, before it works); `regrets` (confirms it, and rolls back later).
It holds the cloud to its word: another device's assignment, or a counter that falls, is an AssertionError.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edge_runtime.wire.assignment import Assignment, Item, read_assignment
from edge_runtime.wire.signed import unseal
from edge_runtime.wire.update_status import SlotStatus, UpdateState, UpdateStatus

FATES = ("good", "bad", "silent", "refuses", "regrets")
_NEXT = {
    UpdateState.DOWNLOADING: UpdateState.STAGED,
    UpdateState.STAGED: UpdateState.TRIAL,
}


@dataclass
class SimulatedDevice:
    """`steps`: states that it passes between two questions. `taken`: artifacts that it ever activated, with their rollout."""

    name: str
    fate: str = "good"
    hardware: str = "x86_64"
    refusals: int = 0
    steps: int = 2
    floor: int = 0
    counter: int = 0
    gone: bool = False
    slots: dict[str, SlotStatus] = field(default_factory=dict)
    items: dict[str, Item] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    taken: list[tuple[str, str]] = field(default_factory=list)

    def status(self, now_ns: int) -> UpdateStatus:
        """What it tells now; between two questions it goes on."""
        for slot_set in list(self.slots):
            for _ in range(self.steps):
                if not self.gone:
                    self.slots[slot_set] = self._after(slot_set, self.slots[slot_set])
                if self.slots[slot_set].state is UpdateState.STAGED:
                    break  # it asks again right before it starts
        floor = {"index": self.floor} if self.floor else {}
        return UpdateStatus(self.name, "boot", self.hardware, now_ns, floor, dict(self.slots))

    def take(self, message: str | None) -> None:
        """An assignment as it comes; its signature is another's matter."""
        if message is None:
            return
        given = read_assignment(unseal(message.encode(), "assignment").body)
        assert given.device == self.name, f"{self.name} got the assignment of {given.device}"
        assert given.counter >= self.counter, f"{self.name}: counter {given.counter} after {self.counter}"
        self.counter = given.counter
        for slot_set in {*given.items, *self.items}:
            self._take(given, slot_set)
        self.items = dict(given.items)

    def _take(self, given: Assignment, slot_set: str) -> None:
        item, slot = given.items.get(slot_set), self.slots.get(slot_set, SlotStatus())
        if item is None:
            if slot.state in _NEXT:
                self.slots[slot_set] = replace(slot, state=UpdateState.IDLE)
        elif item.go == "revert":
            self._revert(slot_set, slot, item)
        elif slot.confirmed != item.sha256 and not self._ended(slot, item):
            known = slot.sha256 == item.sha256 and slot.state in (*_NEXT, UpdateState.TRIAL)
            if not known:
                told = replace(slot, state=UpdateState.DOWNLOADING, target=item.target, sha256=item.sha256, reason="")
                self.slots[slot_set] = replace(told, rollout=item.rollout, counter=given.counter)

    def _ended(self, slot: SlotStatus, item: Item) -> bool:
        """A hash that ended badly is refused until there is a newer assignment of it."""
        bad = slot.state in (UpdateState.ROLLED_BACK, UpdateState.REFUSED)
        return bad and slot.sha256 == item.sha256 and self.counter <= slot.counter

    def _revert(self, slot_set: str, slot: SlotStatus, item: Item) -> None:
        if item.sha256 in (slot.confirmed, slot.running) or slot.sha256 == item.sha256:
            old = self.before.get(slot_set, "") if slot.confirmed == item.sha256 else slot.confirmed
            gone = replace(slot, state=UpdateState.ROLLED_BACK, sha256=item.sha256, reason="taken back")
            self.slots[slot_set] = replace(gone, running=old, confirmed=old)

    def _after(self, slot_set: str, slot: SlotStatus) -> SlotStatus:
        item = self.items.get(slot_set)
        if slot.state is UpdateState.STAGED and (item is None or item.go != "activate"):
            return slot
        if slot.state is UpdateState.DOWNLOADING and self.refusals > 0:
            self.refusals -= 1
            return replace(slot, state=UpdateState.REFUSED, reason="the download broke off")
        if slot.state in _NEXT:
            after = replace(slot, state=_NEXT[slot.state])
            if after.state is UpdateState.TRIAL:
                self.taken.append((slot.sha256, slot.rollout))
                self.gone = self.gone or self.fate == "silent"
                return replace(after, running=slot.sha256)
            return replace(after, installed=slot.sha256)
        if slot.state is UpdateState.TRIAL:
            return self._end(slot_set, slot)
        if slot.state is UpdateState.CONFIRMED and self.fate == "regrets" and slot.sha256 == slot.confirmed:
            old = self.before.get(slot_set, "")
            self.fate = "bad"
            return replace(slot, state=UpdateState.ROLLED_BACK, running=old, confirmed=old, reason="hung later")
        return slot

    def _end(self, slot_set: str, slot: SlotStatus) -> SlotStatus:
        if self.fate == "bad":
            reason = "p99 over the limit on this board"
            return replace(slot, state=UpdateState.ROLLED_BACK, running=slot.confirmed, reason=reason)
        self.before[slot_set] = slot.confirmed
        return replace(slot, state=UpdateState.CONFIRMED, confirmed=slot.sha256)
