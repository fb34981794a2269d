"""What the launcher has given up is written down by the supervisor of the runtime that it has started instead.

The launcher writes nothing but tries into the record; what it has given up it tells in $GUDGEON_GIVEN_UP, JSON of hash → why.
What cannot be written now is written at the next start: until then the launcher remembers it.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from edge_runtime import log
from edge_runtime.errors import BundleError, ResourceError
from edge_runtime.update import records, states
from edge_runtime.update.lock import writing
from edge_runtime.update.records import SlotRecord

VARIABLE = "GUDGEON_GIVEN_UP"
SLOT_SET = "runtime"
WAIT_S = 2.0  # the line waits for this start


def write_down(state_dir: Path, told: str, now_ns: int) -> None:
    """`told`: what the launcher says, "" where there is none."""
    given_up: dict[str, str] = json.loads(told or "{}")

    def after(record: SlotRecord) -> SlotRecord:
        for sha256, why in given_up.items():
            record = states.given_up(record, sha256, why, now_ns)
        return record

    try:
        record = records.read(state_dir, SLOT_SET).record
        if after(record) != record:
            with writing(state_dir, WAIT_S):
                records.write_end(state_dir, SLOT_SET, after(records.read(state_dir, SLOT_SET).record))
    except (BundleError, ResourceError) as error:
        log.say(logging.WARNING, "what the launcher gave up is not written down yet", reason=str(error))
