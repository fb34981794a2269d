"""A download in small chunks, cut in between, after one that came to its end: what is crashed, and what must be there then."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.clock import FakeClock
from edge_runtime.update.fetch import download as downloading
from edge_runtime.update.fetch import partial as partials
from edge_runtime.update.fetch.memory import MemoryFetcher
from edge_runtime.update.fetch.pace import Limits
from edge_runtime.update.fetch.partial import Wanted, sweep
from tools.crash.models import Model
from tools.crash.notes import Note, tell
from tools.crash.scenario import Scenario, State

CHUNK_BYTES, TAIL_BYTES = 4096, 1024
LENGTHS = {"old": CHUNK_BYTES + 5, "new": 5 * CHUNK_BYTES + 77}
DATA = {name: random.Random(name).randbytes(length) for name, length in LENGTHS.items()}
WANTED = {name: Wanted(f"targets/{name}.tar", len(d), hashlib.sha256(d).hexdigest()) for name, d in DATA.items()}
LIMITS = Limits(leave_free_bytes=0)


def fetched(folder: Path, name: str) -> tuple[bool, int]:
    """Whether the right file came out, and how many bytes it took."""
    _small_chunks()
    cuts = [3 * CHUNK_BYTES]
    fetcher = MemoryFetcher(
        {w.path: DATA[n] for n, w in WANTED.items()},
        cut=lambda path, position: bool(cuts) and position >= cuts[0] and bool(cuts.pop()),
    )
    path = downloading.download(
        fetcher, WANTED[name], folder, FakeClock(), LIMITS, lambda held, of: tell(name=name, held=held)
    )
    return path.read_bytes() == DATA[name], fetcher.given_bytes


def _small_chunks() -> None:
    """Each module has its own name of it."""
    for module in (partials, downloading):
        vars(module)["CHUNK_BYTES"], vars(module)["TAIL_BYTES"] = CHUNK_BYTES, TAIL_BYTES


def run(folder: Path) -> None:
    for name in WANTED:
        sweep(folder, {WANTED[name].sha256})
        right, _ = fetched(folder, name)
        tell(name=name, done=right)


def recover(folder: Path) -> State:
    right, given = fetched(folder, "new")
    sweep(folder, {WANTED["new"].sha256})
    return {"right": right, "given": given, "left": sorted(os.listdir(folder))}


def check(notes: Sequence[Note], state: State, model: Model) -> list[str]:
    """The file, whole; nothing else is left; and no chunk that was told as kept is fetched again."""
    if "error" in state:
        return [f"recovery failed: {state['error']}"]
    held = max((note["held"] for note in notes if note.get("name") == "new" and "held" in note), default=0)
    wrong = [] if state["right"] else ["what came out is not the file"]
    if state["left"] != [WANTED["new"].sha256]:
        wrong.append(f"left behind: {state['left']}")
    if state["given"] > LENGTHS["new"] - held:
        wrong.append(f"{state['given']} bytes were fetched again; {held} of {LENGTHS['new']} had been told as kept")
    return wrong


DOWNLOAD = Scenario("a download in chunks, cut, swept and taken up again", run, recover, check)
