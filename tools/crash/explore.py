"""Every crash point of a recording, under every model: the image, its recovery, and what is wrong then.

- A point is the moment before one operation, or after the last. Points whose images are the same, byte for byte, share one
  recovery; each is checked by what had been promised until then.
- Recovery is crashed in the same way at each of its own operations: one recovery of each shape, which is the row of its
  operations without what they write. After a killed process (model `written`) it begins with what is not flushed yet, so
  that a power cut after the restart is among the points.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from random import Random
from typing import NamedTuple

from tools.crash.disk import Disk, Image, same_key
from tools.crash.models import MODELS, image
from tools.crash.notes import Note, read_notes
from tools.crash.recovery import Recovered, Recovery
from tools.crash.scenario import Scenario
from tools.crash.trace import Kind, Op

EXAMPLES = 5
WITHIN_IMAGES = 500  # of one recovery, evenly spread where it has more


class Point(NamedTuple):
    """`notes`: how many had been told. `op`: what was about to be done; None at the end."""

    model: str
    notes: int
    op: Op | None

    def __str__(self) -> str:
        return f"{self.model}, before {self.op or 'the end'}"


@dataclass
class Found:
    """Counts by model. `within`: the same for crashes during recovery. `images`: different ones that were recovered;
    `shapes`: of their recoveries."""

    points: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    within: Counter[str] = field(default_factory=Counter)
    within_failed: Counter[str] = field(default_factory=Counter)
    images: int = 0
    shapes: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.points.total() + self.within.total()

    @property
    def all_failed(self) -> int:
        return self.failed.total() + self.within_failed.total()

    def add(self, point: Point, problems: Sequence[str], within: str = "") -> None:
        points, failed = (self.within, self.within_failed) if within else (self.points, self.failed)
        points[point.model] += 1
        if problems:
            failed[point.model] += 1
            if len(self.examples) < EXAMPLES:
                self.examples.append(f"{within}{point}: {problems[0]}")


class Plan(NamedTuple):
    """`every`: take each n-th image. `within`: at most so many recoveries are crashed themselves, each of another shape, at
    most WITHIN_IMAGES images of each."""

    models: Sequence[str] = tuple(MODELS)
    every: int = 1
    within: int = 20
    seed: int = 1


Told = Callable[[int, int], None]


def notes_of(ops: Sequence[Op]) -> list[Note]:
    return [note for op in ops if op.kind is Kind.NOTE for note in read_notes(op.data)]


def explore(
    scenario: Scenario, before: Disk, ops: Sequence[Op], recovery: Recovery, plan: Plan, told: Told | None = None
) -> Found:
    """`told`: images done, of how many."""
    found, notes = Found(), notes_of(ops)
    groups = _groups(before, ops, plan)
    chosen = set(itertools.islice(groups, 0, None, plan.every))
    seen: set[Key] = set()
    shapes: set[Shape] = set()
    for disk, _, shown in _images(before, ops, plan):
        key = same_key(shown)
        if key in seen or key not in chosen:
            continue
        seen.add(key)
        points = groups[key]
        killed = key == same_key(image(disk, MODELS["written"], Random(0)))
        recovered = recovery.of(shown, disk if killed else None)
        for point in points:
            found.add(point, scenario.check(notes[: point.notes], recovered.state, MODELS[point.model]))
        shape = shape_of(recovered.ops, killed)
        if shape not in shapes and len(shapes) < plan.within:
            _within(scenario, recovered, notes, points[-1], recovery, plan, found)
        shapes.add(shape)
        if told:
            told(len(seen), len(chosen))
    found.images += len(seen)
    found.shapes = len(shapes)
    return found


Key = tuple[object, ...]
Shape = tuple[object, ...]


def shape_of(ops: Sequence[Op], killed: bool) -> Shape:
    """What is done to which kind of file, without places and contents; runs of writes as one."""
    steps = [(op.kind, PurePath(op.path).suffix, PurePath(op.other).suffix) for op in ops if op.kind is not Kind.NOTE]
    return killed, *(step for step, _ in itertools.groupby(steps))


def _groups(before: Disk, ops: Sequence[Op], plan: Plan) -> dict[Key, list[Point]]:
    """The points of each image, in the order in which they come."""
    groups: dict[Key, list[Point]] = defaultdict(list)
    for _, point, shown in _images(before, ops, plan):
        groups[same_key(shown)].append(point)
    return groups


def _images(before: Disk, ops: Sequence[Op], plan: Plan) -> Iterator[tuple[Disk, Point, Image]]:
    """The disk at every point, and its image under every model; to be used before the next is asked for."""
    disk, notes = copy.deepcopy(before), 0
    for op in [*ops, None]:
        if op is not None and op.kind is Kind.NOTE:
            notes += len(read_notes(op.data))
            continue
        if op is not None and op.kind is Kind.FAILED:
            continue
        for name in plan.models:
            number = op.number if op else 0
            yield disk, Point(name, notes, op), image(disk, MODELS[name], Random(f"{plan.seed} {number}"))
        if op is not None:
            disk.apply(op)


def _within(
    scenario: Scenario,
    recovered: Recovered,
    notes: Sequence[Note],
    at: Point,
    recovery: Recovery,
    plan: Plan,
    found: Found,
) -> None:
    """Crash the recovery at each of its own operations, and recover again: what it told counts, too. What was never flushed
    may have gone at the first crash, whatever the model of the second."""
    earlier, later = list(notes[: at.notes]), notes_of(recovered.ops)
    groups = _groups(recovered.before, recovered.ops, plan)
    step = plan.every * -(-len(groups) // WITHIN_IMAGES)
    chosen = set(itertools.islice(groups, 0, None, step))
    seen: set[Key] = set()
    for _, _, shown in _images(recovered.before, recovered.ops, plan):
        key = same_key(shown)
        if key in seen or key not in chosen:
            continue
        seen.add(key)
        state = recovery.of(shown).state
        for point in groups[key]:
            model = MODELS[point.model]._replace(keeps_all=False)
            problems = scenario.check([*earlier, *later[: point.notes]], state, model)
            found.add(point, problems, within=f"recovery from ({at}); then ")
    found.images += len(seen)
