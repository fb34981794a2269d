"""The ledger of a run: what the producer's own list says against what the cloud's database holds. Pure.

- *lost*: acknowledged by `durable=True`, not in the cloud with this identity and this content, and in no stated shed range.
- *bulk_lost*: the same for records that were not durable. A process that is killed loses none either; a disk that is cut
  off may.
- *double*: a record that had two effects: two rows of one number, or a part that the projection counted twice.
- *disordered*: a stream of one chain in which a later number came under an earlier sequence.
- *findings*: what the cloud found wrong with the device's chain; an honest device gives it no reason, whatever the fault.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Identity(NamedTuple):
    chain: str
    stream: str
    seq: int


@dataclass(frozen=True)
class Produced:
    """One line of the producer's ledger."""

    identity: Identity
    n: int
    sha256: str
    durable: bool
    wall_ns: int


@dataclass(frozen=True)
class Arrived:
    """One row of the cloud."""

    identity: Identity
    n: int
    sha256: str
    wall_ns: int


class ShedRange(NamedTuple):
    chain: str
    stream: str
    first: int
    last: int
    every: int

    def holds(self, i: Identity) -> bool:
        inside = (i.chain, i.stream) == (self.chain, self.stream) and self.first <= i.seq <= self.last
        return inside and not (self.every and i.seq % self.every == 0)


@dataclass(frozen=True)
class Cloud:
    """What the cloud's database says of the device. `counted` and `parts`: Decisions in its counters and parts in its
    projection."""

    rows: Sequence[Arrived]
    shed: Sequence[ShedRange]
    counted: int
    part_rows: Counter[tuple[int, int]]
    findings: Sequence[str] = ()


@dataclass(frozen=True)
class Ledger:
    produced: int
    acknowledged: int
    delivered: int
    lost: int
    bulk_lost: int
    double: int
    shed: int
    disordered: int
    unlisted: int
    refused: int
    findings: int
    examples: tuple[str, ...]


def read_ledger(text: str) -> tuple[list[Produced], list[str]]:
    """What was taken, and the reasons of what was refused. The last line may be torn by a kill."""
    taken, refused = [], []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "refused" in row:
            refused.append(row["refused"])
            continue
        identity = Identity(row["chain"], row["stream"], row["seq"])
        taken.append(Produced(identity, row["n"], row["sha256"], row["durable"], row["wall_ns"]))
    return taken, refused


def settle(produced: Sequence[Produced], refused: Sequence[str], cloud: Cloud) -> Ledger:
    """Compare on identity and content."""
    there = {(row.identity, row.sha256) for row in cloud.rows}
    missing = [p for p in produced if (p.identity, p.sha256) not in there]
    in_range = {p.n for p in missing if any(r.holds(p.identity) for r in cloud.shed)}
    lost = [p for p in missing if p.n not in in_range]
    doubled = doubles(cloud)
    listed = {p.n for p in produced}
    examples = [f"lost: {p.identity.stream} {p.identity.seq} (n {p.n})" for p in lost if p.durable][:5]
    return Ledger(
        produced=len(produced),
        acknowledged=sum(p.durable for p in produced),
        delivered=len(produced) - len(missing),
        lost=sum(p.durable for p in lost),
        bulk_lost=sum(not p.durable for p in lost),
        double=len(doubled),
        shed=len(in_range),
        disordered=disordered(cloud.rows),
        unlisted=sum(row.n not in listed for row in cloud.rows),
        refused=len(refused),
        findings=len(cloud.findings),
        examples=(*examples, *doubled[:5], *(f"finding: {text}" for text in cloud.findings[:5])),
    )


def doubles(cloud: Cloud) -> list[str]:
    """Every second effect, told."""
    numbers = Counter(row.n for row in cloud.rows)
    found = [f"double: number {n} has {times} rows" for n, times in numbers.items() if times > 1]
    places = Counter(row.identity for row in cloud.rows)
    found += [f"double: {place} has {times} rows" for place, times in places.items() if times > 1]
    found += [f"double: part {part} has {times} Decisions" for part, times in cloud.part_rows.items() if times > 1]
    decisions = sum(row.identity.stream == "decision" for row in cloud.rows)
    over = cloud.counted - decisions
    return found + ["double: the cloud's counter is ahead of its rows"] * max(0, over)


def disordered(rows: Iterable[Arrived]) -> int:
    streams: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for row in rows:
        streams[row.identity[:2]].append((row.identity.seq, row.n))
    count = 0
    for pairs in streams.values():
        numbers = [n for _, n in sorted(pairs)]
        count += sum(later < earlier for earlier, later in itertools.pairwise(numbers))
    return count


def outstanding(produced: Iterable[Produced]) -> Mapping[tuple[str, str], int]:
    """(chain, stream) → the highest sequence number that was produced."""
    top: dict[tuple[str, str], int] = {}
    for p in produced:
        key = (p.identity.chain, p.identity.stream)
        top[key] = max(p.identity.seq, top.get(key, 0))
    return top


def as_json(ledger: Ledger) -> dict[str, Any]:
    return {**vars(ledger), "examples": list(ledger.examples)}
