"""What an outbox has promised by its notes, against what it holds after a crash. Pure.

Notes of the program, in the order in which they were told:

    try        numbers `n` of records that are about to be appended
    took       [chain, stream, seq, SHA-256 of the line, n] of each record of an append that has returned; `durable`
    sent       a checkpoint was given out, with records: from here on the cloud may know all of it
    acked      stream → sequence number that the cloud has; told before the outbox hears it
    confirmed  id up to which the cloud has the shed ranges

State: chain, streams {stream: {head, records [seq, SHA-256, prev, n]}}, checkpoint, damaged (names of files set aside).
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from edge_runtime.wire.envelope import genesis
from tools.crash.models import Model
from tools.crash.notes import Note
from tools.crash.scenario import State

DEVICE = "crash-01"
ALARM = "alarm"
NO_NUMBER = 0  # a part of a blob, or a record that the outbox makes by itself


class Held(NamedTuple):
    seq: int
    sha256: str
    prev: str
    n: int


class Taken(NamedTuple):
    chain: str
    stream: str
    seq: int
    sha256: str
    n: int


class Promises:
    """The notes, added up."""

    def __init__(self, notes: Sequence[Note]) -> None:
        self.tried: set[int] = {NO_NUMBER}
        self.acked: dict[str, int] = {}
        self.taken: list[Taken] = []
        self.must: list[Taken] = []
        self.sent: dict[tuple[str, int], str] = {}
        self.checkpoints: list[Mapping[str, Any]] = []
        self.confirmed = 0
        for note in notes:
            self._add(note)

    def _add(self, note: Note) -> None:
        self.tried.update(note.get("try", ()))
        taken = [Taken(*row) for row in note.get("took", ())]
        self.taken += taken
        if note.get("durable") or "sent" in note:
            self.must = list(self.taken)  # one flush takes all that was before it along
        if "sent" in note:
            self.checkpoints.append(note["sent"])
            self.sent |= {(stream, seq): sha256 for stream, seq, sha256 in note["records"]}
            self.sent |= {(s, head[0]): head[1] for s, head in note["sent"]["heads"].items()}
        self.acked |= {s: max(seq, self.acked.get(s, 0)) for s, seq in note.get("acked", {}).items()}
        self.confirmed = max(self.confirmed, note.get("confirmed", 0))


class Ranges:
    """What was given up, as stated by the outbox now, or confirmed by the cloud before."""

    def __init__(self, stated: Sequence[Mapping[str, Any]], promises: Promises) -> None:
        self.stated = stated
        known = [s for c in promises.checkpoints for s in c["shed"] if s["id"] <= promises.confirmed]
        self._all = [*stated, *known]

    def hold(self, stream: str, seq: int) -> bool:
        return any(
            s["stream"] == stream and s["first"] <= seq <= s["last"] and not (s["every"] and seq % s["every"] == 0)
            for s in self._all
        )

    def cover(self, shed: Mapping[str, Any]) -> bool:
        same = ("stream", "policy", "first", "every")
        return any(all(s[k] == shed[k] for k in same) and s["last"] >= shed["last"] for s in self._all)


def check(notes: Sequence[Note], state: State, model: Model, damage: bool = False) -> list[str]:
    """What is wrong. `damage`: the program met a damaged file, so that a new chain is right."""
    if "error" in state:
        return [f"recovery failed: {state['error']}"]
    promises = Promises(notes)
    ranges = Ranges(state["checkpoint"]["shed"], promises)
    held = {stream: [Held(*row) for row in found["records"]] for stream, found in state["streams"].items()}
    return [
        *_missing(promises.taken if model.keeps_all else promises.must, promises, ranges, held, state["chain"]),
        *_sequences(state, promises, ranges, held),
        *_strangers(promises, held),
        *_taken_back(promises, ranges, held, state),
        *_damage(state, damage),
    ]


def _missing(
    must: Sequence[Taken], promises: Promises, ranges: Ranges, held: Mapping[str, Sequence[Held]], chain: str
) -> Iterator[str]:
    there = {(stream, h.seq): h.sha256 for stream, found in held.items() for h in found}
    for t in must:
        if t.chain != chain:
            yield f"{t.stream} {t.seq} was taken into chain {t.chain}; the outbox has {chain} now"
        elif (found := there.get((t.stream, t.seq))) is not None:
            if found != t.sha256:
                yield f"{t.stream} {t.seq} (n {t.n}) is another record than the one that was acknowledged"
        elif ranges.hold(t.stream, t.seq) and t.stream != ALARM:
            continue
        elif t.seq > promises.acked.get(t.stream, 0):
            yield f"lost: {t.stream} {t.seq} (n {t.n})"


def _sequences(state: State, promises: Promises, ranges: Ranges, held: Mapping[str, Sequence[Held]]) -> Iterator[str]:
    """No gap, no repeat, every link right."""
    for stream, found in held.items():
        seqs = [h.seq for h in found]
        if seqs != sorted(set(seqs)):
            yield f"{stream}: sequence numbers {seqs} come twice or out of order"
        upto = state["streams"][stream]["head"]
        gone = set(range(promises.acked.get(stream, 0) + 1, upto + 1)) - set(seqs)
        if unstated := [seq for seq in sorted(gone) if not ranges.hold(stream, seq)]:
            yield f"{stream}: {unstated[:3]} of 1 … {upto} are neither held, acknowledged nor stated as given up"
        if found and found[0].seq == 1 and found[0].prev != genesis(DEVICE, state["chain"], stream):
            yield f"{stream} 1: names a predecessor"
        for a, b in itertools.pairwise(found):
            if b.seq == a.seq + 1 and b.prev != a.sha256:
                yield f"{stream} {b.seq}: broken link"


def _strangers(promises: Promises, held: Mapping[str, Sequence[Held]]) -> Iterator[str]:
    numbers = Counter(h.n for found in held.values() for h in found if h.n != NO_NUMBER)
    yield from (f"number {n} is there {times} times" for n, times in numbers.items() if times > 1)
    yield from (f"number {n} was never appended" for n in numbers if n not in promises.tried)


def _taken_back(promises: Promises, ranges: Ranges, held: Mapping[str, Sequence[Held]], state: State) -> Iterator[str]:
    """What a checkpoint or a batch has told the cloud stays true."""
    now = state["checkpoint"]
    there: dict[str, dict[int, Held]] = defaultdict(dict)
    for stream, found in held.items():
        there[stream] = {h.seq: h for h in found}
    for (stream, seq), sha256 in promises.sent.items():
        h, after = there[stream].get(seq), there[stream].get(seq + 1)
        if state["streams"].get(stream, {"head": 0})["head"] < seq:
            yield f"{stream} {seq} was told to the cloud; the outbox ends before it"
        if (h and h.sha256 != sha256) or (after and after.prev != sha256):
            yield f"{stream} {seq} was told to the cloud as another record"
    for told in promises.checkpoints:
        if told["chain"] != now["chain"]:
            yield f"chain {told['chain']} was told to the cloud; the outbox has {now['chain']} now"
        if told["counter"] >= now["counter"]:
            yield f"checkpoint counter {now['counter']} was given out before"
        for shed in told["shed"]:
            if not ranges.cover(shed):
                yield f"the shed range {shed['stream']} {shed['first']} … {shed['last']} was signed and is taken back"


def _damage(state: State, damage: bool) -> Iterator[str]:
    if not damage and state["damaged"]:
        yield f"a sound file was set aside as {state['damaged'][0]}"
    if damage and not state["evidence"]:
        yield "the damaged file is gone"
    if damage and not state["told_damage"]:
        yield "the damage was never told"
