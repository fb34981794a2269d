"""The `[[assets]]` tables: what is watched, by which bundles and rules, and what becomes an alarm."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_runtime.decide.alarm_book import Place
from edge_runtime.decide.alarms import AlarmSettings
from edge_runtime.decide.tag_rules import Rule, SeverityName, check_rules

NAME = re.compile(r"[a-z0-9-]{1,18}")
RULE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
ANOMALY, REMAINING, SAMPLES = SOURCES = ("anomaly", "remaining", "samples")

#: kind of a series bundle → the alarm that it feeds
SOURCE_OF = {"anomaly": ANOMALY, "rul": REMAINING}


@dataclass(frozen=True)
class AssetBundles:
    """Installed at start where they are not active yet, each into its slot set; the same as `gudgeon install --slot-set`."""

    anomaly: Path | None = None
    rul: Path | None = None


@dataclass(frozen=True)
class Running:
    """The machine runs where the newest fresh value of `tag` is above `above`. No tag: it runs where samples are fresh."""

    tag: str = ""
    above: float = 0.0
    fresh_s: float = 30.0


@dataclass(frozen=True)
class RemainingLevels:
    """From the remaining life to a severity: the first that it is below. `hours_per_unit`: hours in one of the bundle's
    units. 0: no alarm of this severity. `times_faster`: how much faster than this clock the machine ages; other than 1 for
    a simulator alone. `pace`: by how much of a row the life that goes in one row may differ from one row."""

    hours_per_unit: float = 1.0
    times_faster: float = 1.0
    pace: float = 2.0
    critical_h: float = 2.0
    high_h: float = 24.0
    medium_h: float = 168.0
    low_h: float = 0.0

    def __post_init__(self) -> None:
        if (
            min(self.hours_per_unit, self.times_faster, self.pace) <= 0
            or min(self.critical_h, self.high_h, self.medium_h, self.low_h) < 0
        ):
            raise ValueError("expected hours_per_unit, times_faster and pace > 0, and hours of 0 or more")

    def level(self, hours: float, held: int, hysteresis: float) -> int:
        """`held`: the severity that holds now; its limit is wider by the hysteresis."""
        limits = ((4, self.critical_h), (3, self.high_h), (2, self.medium_h), (1, self.low_h))
        for severity, limit in limits:
            if hours < limit * (1.0 + hysteresis if severity <= held else 1.0):
                return severity
        return 0


@dataclass(frozen=True)
class DriftSettings:
    """`samples` are one block, and one test; `rate`: the share of tests that may find drift where there is none.
    `stride_rows` 0: the longer of the model's window and the smoothing. `least_hours`: between two Events of one model."""

    samples: int = 200
    rate: float = 0.01
    stride_rows: int = 0
    least_hours: float = 1.0

    def __post_init__(self) -> None:
        if not 30 <= self.samples <= 5000 or not 1e-6 <= self.rate <= 0.5:
            raise ValueError("drift: expected samples from 30 to 5000 and rate from 0.000001 to 0.5")
        if self.stride_rows < 0 or self.least_hours < 0:
            raise ValueError("drift: stride_rows and least_hours must be 0 or more")


@dataclass(frozen=True)
class AssetSection:
    """`report_s`: the asset's state is told this often, and at once when it changes by `report_share` of the threshold.
    `lag_s`: how long to wait for samples that are under way before a row is made."""

    name: str
    bundles: AssetBundles = field(default_factory=AssetBundles)
    rules: tuple[Rule, ...] = ()
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    remaining: RemainingLevels = field(default_factory=RemainingLevels)
    running: Running = field(default_factory=Running)
    drift: DriftSettings = field(default_factory=DriftSettings)
    samples_severity: SeverityName = "medium"
    report_s: float = 10.0
    report_share: float = 0.1
    lag_s: float = 0.2

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"assets: name is {self.name!r}, expected 1 to 18 characters of a-z 0-9 -")
        for rule in self.rules:
            if rule.name in SOURCES or not RULE_NAME.fullmatch(rule.name):
                raise ValueError(
                    f"assets {self.name}: a rule is named {rule.name!r}, expected 1 to 64 characters of "
                    f"A-Z a-z 0-9 _ . - and none of {', '.join(SOURCES)}"
                )
        check_rules(self.rules)
        if not self.report_s > 0 or not self.report_share >= 0 or not 0 <= self.lag_s <= 60:
            raise ValueError(f"assets {self.name}: expected report_s > 0, report_share >= 0 and lag_s from 0 to 60")

    @property
    def tags(self) -> list[str]:
        """Those that rules and `running` name; the tags of a bundle are known when it is loaded."""
        return [name for name in (self.running.tag, *(rule.tag for rule in self.rules)) if name]

    def slot_set(self, kind: str) -> str:
        return f"asset-{self.name}-{kind}"

    @property
    def slot_sets(self) -> dict[str, Path]:
        """Slot set → the bundle that the configuration names for it."""
        named = {"anomaly": self.bundles.anomaly, "rul": self.bundles.rul}
        return {self.slot_set(kind): path for kind, path in named.items() if path is not None}

    @property
    def places(self) -> list[Place]:
        """Every alarm that this asset can raise."""
        found = [Place(self.name, source, self.alarms) for source in SOURCES]
        return found + [Place(self.name, rule.name, self._settings(rule)) for rule in self.rules if not rule.silent]

    def _settings(self, rule: Rule) -> AlarmSettings:
        delays = {"on_delay_s": rule.on_delay_s, "off_delay_s": rule.off_delay_s}
        return replace(self.alarms, **{name: seconds for name, seconds in delays.items() if seconds >= 0})  # type: ignore[arg-type]
