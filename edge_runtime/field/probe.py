"""What an unknown Modbus device has: which ranges can be read, and how their register pairs are best understood. Pure: the
reading is a function that is handed in.

Ranges: a block that is refused is halved until single registers are known. Byte orders: each pair of neighbours is decoded in
the four orders as float32 and int32, over a few readings, and scored by what measured values look like (`score`). All zeros say
nothing and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edge_runtime.field.codec import decode
from edge_runtime.field.tag import Space, Tag, TagType, WordOrder

Read = Callable[[Space, int, int], list[int] | None]
SPACES: tuple[Space, ...] = ("holding", "input", "coil", "discrete")
REGISTERS: tuple[Space, ...] = ("holding", "input")
BLOCK = 100
ORDERS: tuple[tuple[WordOrder, float], ...] = (
    ("ABCD", 0.15),
    ("CDAB", 0.10),
    ("DCBA", 0.0),
    ("BADC", 0.0),
)  # how usual
KINDS: tuple[TagType, ...] = ("float32", "int32")
LEAST_SCORE = 0.5
SWAPPED_SMALL = -4.0
SMALL_STEP = 5  # of whole numbers: a counter that has just begun


@dataclass(frozen=True)
class Guess:
    """One pair at `address` and the one after it, under one order."""

    address: int
    type: TagType
    word_order: WordOrder
    score: float
    values: tuple[float, ...]


def ranges(read: Read, space: Space, first: int, last: int) -> list[tuple[int, int]]:
    """The readable ranges from `first` to `last`, both ends included."""
    found: list[tuple[int, int]] = []

    def look(begin: int, count: int) -> None:
        if read(space, begin, count) is not None:
            if found and found[-1][1] == begin - 1:
                found[-1] = (found[-1][0], begin + count - 1)
            else:
                found.append((begin, begin + count - 1))
        elif count > 1:
            look(begin, count // 2)
            look(begin + count // 2, count - count // 2)

    for begin in range(first, last + 1, BLOCK):
        look(begin, min(BLOCK, last + 1 - begin))
    return found


def pairs(readings: Sequence[Sequence[int]], first: int) -> list[Guess]:
    """The pairs, none overlapping, that explain the registers from `first` on best as a whole: the choice with the largest
    sum of scores. A wrong alignment may look well at one place, but not at all of them."""
    best: list[tuple[float, tuple[Guess, ...]]] = [(0.0, ()), (0.0, ())]  # of the registers before each place
    for at in range(len(readings[0]) - 1):
        here = max(candidates([r[at : at + 2] for r in readings], first + at), key=lambda g: g.score, default=None)
        total, chosen = best[-1]
        if here is not None and here.score >= LEAST_SCORE and best[-2][0] + here.score > total:
            total, chosen = best[-2][0] + here.score, (*best[-2][1], here)
        best.append((total, chosen))
    return list(best[-1][1])


def candidates(readings: Sequence[Sequence[int]], address: int) -> list[Guess]:
    """Every order and type for one pair; none where it is always zero."""
    if not any(any(words) for words in readings):
        return []
    small = all(word < 256 for words in readings for word in words)  # two small whole numbers, not one swapped value
    out = []
    for kind in KINDS:
        for order, usual in ORDERS:
            bonus = usual + (SWAPPED_SMALL if small and order in ("DCBA", "BADC") else 0.0)
            tag = Tag("pair", kind, word_order=order)
            values = tuple(float(decode(tag, words)) for words in readings)
            out.append(Guess(address, kind, order, score(kind, values) + bonus, values))
    return out


def score(kind: TagType, values: Sequence[float]) -> float:
    """How much the readings look like one measured quantity: a size that people use, and small steps between readings.
    A float of at most five digits (21.37) is a strong sign: by chance that happens once in hundreds."""
    size = sum(map(_float_size if kind == "float32" else _int_size, values)) / len(values)
    steps = [_step(a, b) for a, b in pairwise(values)]
    return size + (sum(steps) / len(steps) if steps else 0.0)


def totals(guesses: Iterable[Guess]) -> list[tuple[WordOrder, float]]:
    """The orders by the summed score of the pairs that they explain best."""
    sums = {order: 0.0 for order, _ in ORDERS}
    for guess in guesses:
        sums[guess.word_order] += guess.score
    return sorted(sums.items(), key=lambda item: -item[1])


def _float_size(value: float) -> float:
    if not math.isfinite(value):
        return -8.0
    if value == 0.0:
        return 0.0
    away = abs(math.log10(abs(value)) - 1.0)  # from 10, between a ratio and a pressure in kPa
    digits = f"{abs(value):.6e}".split("e")[0].replace(".", "").rstrip("0")
    return max(-8.0, 2.0 - 0.4 * away) + (1.5 if len(digits) <= 5 and away < 6 else 0.0)


def _int_size(value: float) -> float:
    return 0.0 if value == 0 else 1.8 - 0.35 * math.log10(abs(value))


def _step(a: float, b: float) -> float:
    if not (math.isfinite(a) and math.isfinite(b)):
        return -1.0
    return (
        1.0 if abs(b - a) <= max(0.2 * max(abs(a), abs(b)), SMALL_STEP if a == int(a) and b == int(b) else 0) else -1.5
    )
