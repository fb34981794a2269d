"""The score of the run, from the parts whose fate at the gate is settled. Nothing here comes from the device but its answers.

recall    diverted bad parts / bad parts          overkill  diverted good parts / good parts
escape    bad parts let through / bad parts       *_clean   the same over the parts with no injected fault
latency   trigger → answer of the parts answered with anything but `fault`; quantiles are values that occurred (nearest rank)

A rate with nothing to divide by is None.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Sequence
from typing import Any

from firmware_sim.part import FAULT, REVIEW, Part

EDGES_MS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 200.0)
LATE_MS = 20.0


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """Nearest rank: the smallest value that at least `share` of the values do not exceed."""
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def histogram(ordered: Sequence[float]) -> list[dict[str, float | int | None]]:
    """Counts between the edges; `le_ms` None is the open last bucket. Not cumulative."""
    cuts = [bisect_left(ordered, math.nextafter(edge, math.inf)) for edge in EDGES_MS]
    ends = [*cuts, len(ordered)]
    return [
        {"le_ms": edge, "count": end - begin}
        for edge, begin, end in zip([*EDGES_MS, None], [0, *cuts], ends, strict=True)
    ]


def latency_summary(ordered_ms: Sequence[float]) -> dict[str, Any]:
    return {
        "n": len(ordered_ms),
        "p50": quantile(ordered_ms, 0.50),
        "p99": quantile(ordered_ms, 0.99),
        "p999": quantile(ordered_ms, 0.999),
        "max": ordered_ms[-1] if ordered_ms else None,
        "late_20ms": len(ordered_ms) - bisect_left(ordered_ms, math.nextafter(LATE_MS, math.inf)),
        "histogram": histogram(ordered_ms),
    }


class Rates:
    """Good and bad parts, diverted or not."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[bool, bool]] = Counter()

    def add(self, part: Part) -> None:
        self._seen[part.truth.defect, part.diverted] += 1

    def summary(self, suffix: str = "") -> dict[str, float | None]:
        recall, overkill = self._diverted_share(True), self._diverted_share(False)
        escape = None if recall is None else self._seen[True, False] / self._total(True)
        return {f"recall{suffix}": recall, f"overkill{suffix}": overkill, f"escape{suffix}": escape}

    def _total(self, defect: bool) -> int:
        return self._seen[defect, True] + self._seen[defect, False]

    def _diverted_share(self, defect: bool) -> float | None:
        total = self._total(defect)
        return self._seen[defect, True] / total if total else None


class Score:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self._all, self._clean = Rates(), Rates()
        self._latencies_ms = array("d")

    def settle(self, part: Part) -> None:
        """Count a part that has met the gate, once."""
        self._all.add(part)
        if part.fault_injected is None:
            self._clean.add(part)
        else:
            self.injected.update(part.fault_injected.split("+"))
        self.counts.update(["parts", "answered" if part.answered else "unanswered"])
        self.counts["bad"] += part.truth.defect
        self.counts["diverted"] += part.diverted
        self.counts["faults"] += part.result == FAULT
        self.counts["reviews"] += part.result == REVIEW
        self.counts["double_answers"] += part.answers > 1
        if part.latency_ms is not None and part.result != FAULT:
            insort(self._latencies_ms, part.latency_ms)

    def summary(self) -> dict[str, Any]:
        names = ("parts", "bad", "diverted", "answered", "unanswered", "faults", "reviews", "double_answers")
        return {
            **{name: self.counts[name] for name in names},
            **self._all.summary(),
            **self._clean.summary("_clean"),
            "trigger_to_answer_ms": latency_summary(self._latencies_ms),
            "faults_injected": dict(self.injected),
        }
