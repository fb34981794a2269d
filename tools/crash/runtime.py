"""A runtime release installed, tried and given up: the environment as the updater makes it, the records as the launcher writes
them. After every crash one of the two runtimes is started, and every file of it has its digest."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

from edge_runtime import launcher
from edge_runtime.launcher import Launcher
from edge_runtime.update import environment, records, states
from edge_runtime.update.records import Job, Release, SlotRecord
from edge_runtime.wire import manifest
from edge_runtime.wire.update_status import UpdateState
from tools.crash.models import Model
from tools.crash.notes import Note, tell
from tools.crash.scenario import Scenario, State

OLD, NEW = "a" * 64, "b" * 64
SLOT_SET = "runtime"
TRIES = 2


def release(folder: Path, name: str) -> Path:
    """A release of one small wheel."""
    path = folder / "releases" / name
    path.mkdir(parents=True)
    wheel = path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for inner in ("thing/__init__.py", "thing/part.py"):
            archive.writestr(zipfile.ZipInfo(inner), f"NAME = {name!r}\n" * 300)
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    head = f'schema = 1\nkind = "runtime"\nname = "gudgeon"\nversion = "1"\npython = "{environment.this_machine().python}"\n'
    head += 'machine = "any"\nglibc = "any"\noutbox = 2\n'
    (path / manifest.MANIFEST).write_text(f'{head}[files]\n"{wheel.name}" = "{sha256}"\n')
    return path


def make(folder: Path, name: str) -> None:
    environment.make(folder / "releases" / name[0], folder / environment.FOLDER, name)


def prepare(folder: Path) -> None:
    (folder / "device.toml").write_text('[device]\nid = "d"\nstate_dir = "."\n')
    (folder / "run").mkdir()
    for name in (OLD, NEW):
        release(folder, name[0])
    make(folder, OLD)
    records.write(folder, SLOT_SET, SlotRecord(UpdateState.CONFIRMED, None, Release(OLD)))


def start(folder: Path) -> Launcher:
    """As `gudgeon-launch` begins after a power cut; nothing is run here."""
    return Launcher(folder / "device.toml", Path("base"), lambda run_dir: None)  # type: ignore[arg-type, return-value]


def run(folder: Path) -> None:
    make(folder, NEW)
    tell(made=True)
    staged = SlotRecord(UpdateState.STAGED, Job(Release(NEW), "r", 5, TRIES + 1), Release(OLD))
    records.write(folder, SLOT_SET, staged)
    tell(begun=True)
    records.write(folder, SLOT_SET, states.try_once(staged))
    tell(on_trial=True)
    for _ in range(TRIES):
        begin(folder)
    begin(folder)


def begin(folder: Path) -> tuple[str, bool] | None:
    """One start by the launcher, told before and after."""
    tell(starting=True)
    found = start(folder).choose()
    tell(started=found)
    return found


def recover(folder: Path) -> State:
    """The next start; then the install again, as the updater would, and the start after that."""
    first = begin(folder)
    sound = [launcher.problem(folder / environment.FOLDER / sha) for sha, _ in filter(None, [first])]
    left = records.read(folder, SLOT_SET).record
    make(folder, NEW)
    second = begin(folder)
    made = [environment.problem(folder / environment.FOLDER / sha) for sha in (OLD, NEW)]
    tries = left.job.tries_left if left.job else -1
    return {"first": first, "second": second, "problem": sound, "made": made, "tries": tries, "state": left.state.value}


def check(notes: Sequence[Note], state: State, model: Model) -> list[str]:
    """Old or new, whole; never more starts on trial than tries; never the new one again after it was given up."""
    if "error" in state:
        return [f"recovery failed: {state['error']}"]
    wrong = [
        f"{sha}: {problem}"
        for sha, problem in zip(("started", "old", "new"), [*state["problem"], *state["made"]], strict=True)
        if problem
    ]
    done = [note["started"] for note in notes if "started" in note]
    begun = any("begun" in note for note in notes)
    for found in (state["first"], state["second"]):
        if found is None or found[0] not in (OLD, NEW):
            wrong.append(f"{found} was started; expected the old runtime or the new one")
        elif found[0] == NEW and not begun:
            wrong.append("the new runtime was started before its trial had begun")
        elif found[0] == NEW and [OLD, False] in done[2:]:
            wrong.append("the new runtime was started after it was given up")
    tried = sum(found == [NEW, True] for found in [*done, state["first"]])
    if tried > TRIES:
        wrong.append(f"the new runtime was started {tried} times, with {TRIES} tries")
    if any("on_trial" in note for note in notes) and not done and state["first"] != [NEW, True]:
        wrong.append(f"its trial was written down, and {state['first']} was started")
    if state["state"] == UpdateState.TRIAL.value and state["tries"] > TRIES - tried:
        wrong.append(f"{state['tries']} tries are left after {tried} starts, of {TRIES}")
    return wrong


RUNTIME = Scenario("a runtime release installed, tried and given up", run, recover, check, prepare)
