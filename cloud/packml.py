"""PackML states (ISA-TR88): the code in the PLC's register to the name on the page."""

from __future__ import annotations

STATES: dict[int, str] = {
    1: "Clearing", 2: "Stopped", 3: "Starting", 4: "Idle", 5: "Suspended", 6: "Execute", 7: "Stopping", 8: "Aborting",
    9: "Aborted", 10: "Holding", 11: "Held", 12: "Unholding", 13: "Suspending", 14: "Unsuspending", 15: "Resetting",
    16: "Completing", 17: "Completed",
}  # fmt: skip

#: the result code in the PLC's register to its name
RESULTS: dict[int, str] = {1: "pass", 2: "reject", 3: "review", 4: "fault"}
#: results after which the line takes the part out
DIVERTED = (2, 3, 4)
