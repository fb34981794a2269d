"""Which part stands in the inspection position: the PLC's 16-bit `part_seq` made into a number that never repeats. Pure.

A part is (epoch, seq). Within an epoch `seq` only grows; a wrap (65535 → 1), a PLC that starts again from a lower number
and a `part_seq` of 0 begin the next epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_runtime.field.handshake import PART_SEQ_MAX

WRAP_WINDOW = 1000  # a fall from the last thousand numbers to the first thousand is a wrap, any other one a reset


@dataclass(frozen=True)
class Part:
    """`missed`: how many triggers came and went since the last part that was seen; `reset`: the PLC began anew."""

    seq: int
    epoch: int
    missed: int = 0
    reset: bool = False


@dataclass(frozen=True)
class PartTracker:
    """`last` is the last number taken, 0 before the first."""

    epoch: int = 1
    last: int = 0

    def see(self, seq: int) -> tuple[PartTracker, Part | None]:
        """The tracker after one reading of `part_seq`, and the part that now waits for its answer, if there is a new one."""
        if seq == self.last:
            return self, None
        if seq == 0:
            return PartTracker(self.epoch + 1, 0), None
        if seq > self.last:
            missed = seq - self.last - 1 if self.last else 0
            return replace(self, last=seq), Part(seq, self.epoch, missed)
        after = PartTracker(self.epoch + 1, seq)
        if self.last > PART_SEQ_MAX - WRAP_WINDOW and seq <= WRAP_WINDOW:
            return after, Part(seq, after.epoch, PART_SEQ_MAX - self.last + seq - 1)
        return after, Part(seq, after.epoch, 0, reset=True)
