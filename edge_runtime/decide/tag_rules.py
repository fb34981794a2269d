"""Rules over tags: limits, rates of change, votes and silence. They need no model and go on without one. Pure.

kind    holds where                                                                          unknown where
above   the newest value is above `limit`; over when it is below limit − hysteresis           no fresh value
below   the newest value is below `limit`; over when it is above limit + hysteresis           no fresh value
rise    the slope of the last `window_s` is above `limit` a second; over below limit − hyst.  half of the window is not there
fall    the slope is below −`limit` a second; over above −limit + hysteresis                  half of the window is not there
stale   no good value has come for `limit` seconds                                            never
vote    at least `k` of the rules `of` hold                                                   the unknown ones could decide it

A value is fresh for `fresh_s`. Only samples of quality good, in order and not dated ahead of now count, so that a bad value
is never a reason: what is unknown holds the alarm as it is (`alarms.observe`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edge_runtime.field.tag import Quality, Sample

Kind = Literal["above", "below", "rise", "fall", "stale", "vote"]
SeverityName = Literal["low", "medium", "high", "critical"]
FUTURE_LIMIT_NS = 1_000_000_000
SLOPE_SAMPLES = 3
SAMPLES_LIMIT = 20_000  # kept of one tag; beyond it the oldest go


@dataclass(frozen=True)
class Rule:
    """One [[assets.rules]] table. `on_delay_s`, `off_delay_s` below 0: those of [assets.alarms]. `silent`: it is no alarm
    of its own and only votes."""

    name: str
    kind: Kind
    tag: str = ""
    limit: float = 0.0
    hysteresis: float = 0.0
    window_s: float = 60.0
    fresh_s: float = 30.0
    of: tuple[str, ...] = ()
    k: int = 0
    severity: SeverityName = "medium"
    on_delay_s: float = -1.0
    off_delay_s: float = -1.0
    while_running: bool = False
    silent: bool = False

    def __post_init__(self) -> None:
        if self.hysteresis < 0 or not 0 < self.window_s <= 86_400 or not 0 < self.fresh_s <= 86_400:
            raise ValueError("expected hysteresis >= 0, window_s and fresh_s from 0 to 86400 seconds")
        if self.kind == "vote":
            if self.tag or not 1 <= self.k <= len(self.of):
                raise ValueError(f"rule {self.name}: a vote has no tag, and k from 1 to the number of rules in `of`")
        elif not self.tag or self.of or self.k:
            raise ValueError(f"rule {self.name}: {self.kind} needs a tag, and neither `of` nor k")
        if self.kind in ("rise", "fall", "stale") and self.limit <= 0:
            raise ValueError(f"rule {self.name}: limit is {self.limit:g}, expected more than 0")


def check_rules(rules: Sequence[Rule]) -> None:
    """ValueError where two rules have one name, or a vote names what is no rule above it."""
    known: set[str] = set()
    for rule in rules:
        if rule.name in known:
            raise ValueError(f"two rules are named {rule.name}")
        if unknown := [name for name in rule.of if name not in known]:
            raise ValueError(f"rule {rule.name}: {unknown[0]!r} is no rule above it")
        known.add(rule.name)


@dataclass(frozen=True)
class Finding:
    """`on` None: unknown. `value`: what was compared; None for a vote and where there is none."""

    rule: Rule
    on: bool | None
    value: float | None
    reason: str


class _History:
    """The good samples of one tag, as far back as a rule looks."""

    def __init__(self, keep_ns: int) -> None:
        self._keep_ns = keep_ns
        self.samples: deque[tuple[int, float]] = deque(maxlen=SAMPLES_LIMIT)

    def add(self, sample: Sample, now_ns: int) -> None:
        if sample.quality is not Quality.GOOD or sample.value is None or not math.isfinite(float(sample.value)):
            return
        if sample.mono_ns > now_ns + FUTURE_LIMIT_NS or (self.samples and sample.mono_ns <= self.samples[-1][0]):
            return
        self.samples.append((sample.mono_ns, float(sample.value)))
        while self.samples[0][0] < sample.mono_ns - self._keep_ns:
            self.samples.popleft()

    def newest(self, now_ns: int, within_s: float) -> float | None:
        if not self.samples or now_ns - self.samples[-1][0] > within_s * 1e9:
            return None
        return self.samples[-1][1]

    def slope(self, now_ns: int, window_s: float) -> float | None:
        """Least squares, per second; None where less than half of the window is there."""
        start_ns = now_ns - round(window_s * 1e9)
        inside = [(t, v) for t, v in self.samples if t >= start_ns]
        if len(inside) < SLOPE_SAMPLES or (inside[-1][0] - inside[0][0]) * 2 < window_s * 1e9:
            return None
        times = [(at - inside[0][0]) / 1e9 for at, _ in inside]
        middle = math.fsum(times) / len(times)
        mean = math.fsum(value for _, value in inside) / len(inside)
        spread = math.fsum((t - middle) ** 2 for t in times)
        return math.fsum((t - middle) * (v - mean) for t, (_, v) in zip(times, inside, strict=True)) / spread


class TagRules:
    """`add` samples, then `look`: one Finding a rule, in order."""

    def __init__(self, rules: Sequence[Rule], start_ns: int) -> None:
        check_rules(rules)
        self.rules = tuple(rules)
        self._start_ns = start_ns
        self._on: dict[str, bool | None] = {}
        keep: dict[str, float] = {}
        for rule in rules:
            if rule.tag:
                keep[rule.tag] = max(keep.get(rule.tag, 0.0), rule.window_s if rule.kind in ("rise", "fall") else 0.0)
        self._histories = {tag: _History(round(seconds * 1e9)) for tag, seconds in keep.items()}

    @property
    def tags(self) -> frozenset[str]:
        return frozenset(self._histories)

    def add(self, sample: Sample, now_ns: int) -> None:
        history = self._histories.get(sample.tag)
        if history is not None:
            history.add(sample, now_ns)

    def fresh(self, rule: Rule, now_ns: int) -> bool:
        """Has the rule's tag a fresh value?"""
        return self._histories[rule.tag].newest(now_ns, rule.fresh_s) is not None

    def look(self, now_ns: int) -> list[Finding]:
        found: dict[str, Finding] = {}
        for rule in self.rules:
            finding = _vote(rule, found) if rule.kind == "vote" else self._measure(rule, now_ns)
            if finding.on is not None:
                self._on[rule.name] = finding.on
            found[rule.name] = finding
        return list(found.values())

    def _measure(self, rule: Rule, now_ns: int) -> Finding:
        history = self._histories[rule.tag]
        if rule.kind == "stale":
            last_ns = history.samples[-1][0] if history.samples else self._start_ns
            age_s = max(0.0, (now_ns - last_ns) / 1e9)
            return Finding(rule, age_s > rule.limit, age_s, f"no good value of {rule.tag} for {age_s:.1f} s")
        if rule.kind in ("above", "below"):
            value = history.newest(now_ns, rule.fresh_s)
            what = rule.tag
        else:
            fresh = history.newest(now_ns, rule.fresh_s) is not None
            value = history.slope(now_ns, rule.window_s) if fresh else None
            what = f"slope of {rule.tag} a second"
        if value is None:
            return Finding(rule, None, None, f"no fresh value of {rule.tag}")
        up = rule.kind in ("above", "rise")
        sign = 1.0 if up else -1.0
        limit = -rule.limit if rule.kind == "fall" else rule.limit
        held = rule.hysteresis if self._on.get(rule.name) else 0.0
        on = sign * (value - limit) > -held
        return Finding(rule, on, value, f"{what} is {value:.6g}, limit {'above' if up else 'below'} {limit:g}")


def _vote(rule: Rule, found: Mapping[str, Finding]) -> Finding:
    outcomes = [found[name].on for name in rule.of]
    yes, unknown = outcomes.count(True), outcomes.count(None)
    on = True if yes >= rule.k else (None if yes + unknown >= rule.k else False)
    held = ", ".join(name for name in rule.of if found[name].on)
    return Finding(rule, on, None, f"{yes} of {len(outcomes)} hold{': ' + held if held else ''}; needs {rule.k}")
