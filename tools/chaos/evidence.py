"""What a fault leaves as proof that it really was there: a scenario whose fault did not happen has shown nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Evidence:
    """`facts` are counts that the kernel, the proxy, the broker's log or the stored records gave; `by` says what made it."""

    happened: bool
    by: str
    facts: dict[str, Any] = field(default_factory=dict)
