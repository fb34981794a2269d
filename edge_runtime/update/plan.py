"""What the updater does next in one slot set. Pure: record, assignment and facts in, one step out; done, it is asked again.

- `fresh`: the cloud was asked a moment ago, with nothing that takes long in between. A candidate is started only then, so that a
  pause, an abort or a closed window is heeded up to the last moment.
- A trial that has begun goes on when the rollout is paused; it ends when another artifact, or the way back, is asked for.
- What is confirmed and assigned, but damaged on the disk, is fetched again and needs no second trial.
- What an assignment may not have (`refusal`) becomes `refused`, with its reason, and is not looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from edge_runtime.update import states
from edge_runtime.update.records import Job, SlotRecord
from edge_runtime.wire.assignment import Item
from edge_runtime.wire.update_status import UpdateState as State

PENDING = (State.DOWNLOADING, State.STAGED)


class Action(Enum):
    """REST: nothing to do. ASK: ask the cloud again, now. TAKE: begin with this artifact. RENEW: the same artifact by a newer
    assignment. ADOPT: assigned, and confirmed already. The others are the inputs of `states`."""

    REST = "rest"
    ASK = "ask"
    TAKE = "take"
    RENEW = "renew"
    ADOPT = "adopt"
    DROP = "drop"
    REFUSE = "refuse"
    FETCH = "fetch"
    CHECK = "check"
    BEGIN = "begin"
    WATCH = "watch"
    ROLL_BACK = "roll back"
    GO_BACK = "go back"


class Step(NamedTuple):
    action: Action
    reason: str = ""


@dataclass(frozen=True)
class Facts:
    """`known`: there is an assignment; `counter` is its; `item`: what it asks of this slot set. `refusal`: why this device may
    not take it. `stored`: its artifact lies whole in the store. `damaged`: what is confirmed does not. `window`: why it may not
    be started at this time. `begun`: the trial runs, as far as this process knows. `floor`: the least index that may be taken."""

    known: bool = False
    counter: int = 0
    item: Item | None = None
    refusal: str = ""
    stored: bool = False
    damaged: bool = False
    fresh: bool = False
    window: str = ""
    begun: bool = False
    floor: int = 0


def plan(record: SlotRecord, facts: Facts) -> Step:
    if record.state is State.TRIAL and record.job:
        return _on_trial(record.job, facts)
    if not facts.known:
        return Step(Action.REST, "no assignment is known")
    item = facts.item
    if item is None:
        return Step(Action.DROP) if record.state in PENDING else Step(Action.REST)
    if item.go == "revert":
        return _back(record, facts, item)
    return _forth(record, facts, item)


def _on_trial(job: Job, facts: Facts) -> Step:
    item = facts.item if facts.known else None
    if not job.release.target:
        return Step(Action.ROLL_BACK, "the installation was cut")
    if item and item.sha256 != job.release.sha256:
        return Step(Action.ROLL_BACK, "another artifact was assigned")
    if item and item.go == "revert":
        return Step(Action.ROLL_BACK, "taken back by the cloud")
    if item and _older(job, item, facts.counter):
        return Step(Action.RENEW)
    if facts.begun:
        return Step(Action.WATCH)
    if not facts.stored:
        return Step(Action.ROLL_BACK, "its files in the store were changed")
    if job.tries_left:
        return Step(Action.BEGIN)
    return Step(Action.ROLL_BACK, "every try ended before there was a verdict")


def _back(record: SlotRecord, facts: Facts, item: Item) -> Step:
    if record.state in PENDING:
        return Step(Action.DROP)
    if record.confirmed is None or record.confirmed.sha256 != item.sha256:
        return Step(Action.REST)
    if record.previous is None:
        return Step(Action.REST, "asked to go back, but nothing was confirmed before")
    if record.previous.index < facts.floor:
        return Step(Action.REST, f"asked to go back to index {record.previous.index}, below the floor {facts.floor}")
    return Step(Action.GO_BACK, "taken back by the cloud")


def _forth(record: SlotRecord, facts: Facts, item: Item) -> Step:
    job, counter = record.job, facts.counter
    same = job is not None and (job.release.sha256, job.release.target) == (item.sha256, item.target)
    if record.confirmed and record.confirmed.sha256 == item.sha256 and not facts.damaged:
        current = same and record.state is State.CONFIRMED
        return Step(Action.ADOPT) if not current or (job and _older(job, item, counter)) else Step(Action.REST)
    if states.refused(record, item.sha256, counter):
        return Step(Action.REST, "refused until there is a new assignment")
    if facts.refusal:
        return Step(Action.REFUSE, facts.refusal)
    if not same or job is None or record.state not in PENDING:
        return Step(Action.TAKE)
    if _older(job, item, counter):
        return Step(Action.RENEW)
    if record.state is State.DOWNLOADING:
        return Step(Action.FETCH)
    return _start(job, facts, item)


def _start(job: Job, facts: Facts, item: Item) -> Step:
    """It is staged."""
    if not facts.stored:
        return Step(Action.TAKE, "its files in the store were changed")
    if not job.checked:
        return Step(Action.CHECK)
    if item.go == "stage":
        return Step(Action.REST, "staged; it waits for the word to start")
    if facts.window:
        return Step(Action.REST, facts.window)
    return Step(Action.BEGIN) if facts.fresh else Step(Action.ASK)


def _older(job: Job, item: Item, counter: int) -> bool:
    return job.counter < counter or job.rollout != item.rollout
