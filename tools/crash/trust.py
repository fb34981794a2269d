"""What a device remembers of a repository, through new keys and a new release: after a crash at any operation it takes nothing
older than what it said it had seen, and the newest always."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_runtime.clock import FakeClock
from edge_runtime.errors import BundleError, EndpointError
from edge_runtime.link.time_floor import RELEASED_NS
from edge_runtime.update.tuf.memory import MemoryRepository
from edge_runtime.update.tuf.repository import TrustedRepository
from tools.crash.models import Model
from tools.crash.notes import Note, tell
from tools.crash.scenario import Scenario, State

PATH = "models/surface/1.tar"
INDEX, COUNTER, KEY = 4, 9, "key"


def _days() -> tuple[MemoryRepository, list[dict[str, bytes]]]:
    """The repository, and what it served on each of four days: a release, new online keys, new keys of the root."""
    repository = MemoryRepository(FakeClock(wall_ns=RELEASED_NS + 10**9))
    days = [repository.state()]
    repository.add(PATH, b"release", index=INDEX)
    repository.publish("models")
    days.append(repository.state())
    repository.rotate("timestamp", "snapshot")
    repository.new_root()
    repository.publish()
    days.append(repository.state())
    before = repository.signers["root"]
    repository.rotate("root", "targets")
    repository.new_root([*before, *repository.signers["root"]])
    repository.publish()
    return repository, [*days, repository.state()]


def _trusted(folder: Path, repository: MemoryRepository) -> TrustedRepository:
    clock = FakeClock(wall_ns=RELEASED_NS + 10**9)
    return TrustedRepository(folder / "trust", repository.root_bytes, repository, clock, lambda: RELEASED_NS)


def run(folder: Path) -> None:
    """A refresh a day; after the second an artifact is confirmed, after the third an assignment comes."""
    repository, days = _days()
    for number, served in enumerate(days):
        repository.files = dict(served)
        trusted = _trusted(folder, repository)
        targets = trusted.refresh()
        tell(seen=number)
        if number == 1:
            targets.target(PATH)
            trusted.raise_index(INDEX)
            tell(index=INDEX)
        if number == 2:
            trusted.count(KEY, COUNTER, {KEY})
            tell(counter=COUNTER)


def recover(folder: Path) -> State:
    """Every day is offered again, the oldest first."""
    repository, days = _days()
    found: dict[str, Any] = {"floor": _trusted(folder, repository).floor.versions, "taken": [], "refused": []}
    found["counter"] = _trusted(folder, repository).floor.counter({KEY})
    for number, served in enumerate(days):
        repository.files = dict(served)
        try:
            _trusted(folder, repository).refresh()
        except (BundleError, EndpointError) as error:
            found["refused"].append(f"{number}: {error}")
        else:
            found["taken"].append(number)
            tell(seen=number)
    return found


def check(notes: Sequence[Note], state: State, model: Model) -> list[str]:
    if "error" in state:
        return [f"recovery failed: {state['error']}"]
    seen = max((note["seen"] for note in notes if "seen" in note), default=0)
    wrong = [f"took day {number}, and had seen day {seen}" for number in state["taken"] if number < seen]
    if 3 not in state["taken"]:
        wrong.append(f"the newest was refused: {state['refused'][-1:]}")
    for name, found in (("index", state["floor"]["index"]), ("counter", state["counter"])):
        least = max((note[name] for note in notes if name in note), default=0)
        if found < least:
            wrong.append(f"{name} {found} is lower than {least}, which was acknowledged")
    return wrong


TRUST = Scenario("a device follows a repository through new keys; the version floor", run, recover, check)
