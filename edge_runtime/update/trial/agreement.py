"""Does a candidate decide as the running model does? Counted on live frames, with Wilson's interval at 95 %. Pure.

As many parts are compared as it takes to be sure either way: agreed as soon as the lower bound reaches what is asked for (after
`parts` at the least), not agreed as soon as the upper bound falls below it, from `refuse_from` parts on: a single part alone
puts it there, and 7 of 100 models that agree on 95 % of parts would be refused by one of their first few. After `most_parts` the
share itself decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Z = 1.959964


def wilson(agreed: int, parts: int) -> tuple[float, float]:
    """Lower and upper bound of the share, 0 to 1 before the first part."""
    if not parts:
        return 0.0, 1.0
    share, z2 = agreed / parts, Z * Z
    middle = share + z2 / (2 * parts)
    half = Z * math.sqrt(share * (1 - share) / parts + z2 / (4 * parts * parts))
    return max(0.0, (middle - half) / (1 + z2 / parts)), min(1.0, (middle + half) / (1 + z2 / parts))


@dataclass
class Agreement:
    """`least`: the share of parts that must be decided alike. `worst_score`: the largest difference of two scores."""

    least: float
    parts_needed: int
    most_parts: int
    refuse_from: int = 1
    parts: int = 0
    agreed: int = 0
    score_sum: float = 0.0
    worst_score: float = 0.0

    def add(self, result: int, score: float | None, other_result: int, other_score: float | None) -> None:
        self.parts += 1
        self.agreed += result == other_result
        if score is not None and other_score is not None:
            self.score_sum += abs(score - other_score)
            self.worst_score = max(self.worst_score, abs(score - other_score))

    @property
    def verdict(self) -> bool | None:
        """None: not known yet."""
        low, high = wilson(self.agreed, self.parts)
        if high < self.least and self.parts >= self.refuse_from:
            return False
        if self.parts >= self.parts_needed and low >= self.least:
            return True
        return self.agreed / self.parts >= self.least if self.parts >= self.most_parts else None

    @property
    def measured(self) -> dict[str, float]:
        low, high = wilson(self.agreed, self.parts)
        found = {"parts": float(self.parts), "agreed": float(self.agreed), "agreement_low": low, "agreement_high": high}
        if self.parts:
            found |= {"agreement": self.agreed / self.parts, "score_difference_mean": self.score_sum / self.parts}
        return found | {"score_difference_max": self.worst_score}

    def __str__(self) -> str:
        low, high = wilson(self.agreed, self.parts)
        return f"{self.agreed} of {self.parts} parts decided alike ({low:.3f} to {high:.3f}), expected {self.least:.3f}"
