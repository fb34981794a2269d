"""Asset: one machine, from samples to alarms and Events. It keeps time by what it is told and writes nothing itself.

    samples ─▶ Follower (anomaly) ─▶ score ────▶ alarm `anomaly`     level by the bundle's calibration
            ─▶ Follower (rul) ─────▶ remaining ▶ alarm `remaining`   level by [assets.remaining]
            ─▶ TagRules ───────────▶ findings ─▶ an alarm a rule
            ─▶ age of the tags ────────────────▶ alarm `samples`     fresh samples are missing

Degrading, in this order: a model that fails is put away and told as a fault, rules go on; a window that is not whole gives no
level, so its alarm holds its state; tags without fresh samples raise `samples` and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edge_runtime.decide.alarm_book import AlarmBook
from edge_runtime.decide.alarm_states import NAMES
from edge_runtime.decide.asset_config import ANOMALY, REMAINING, SAMPLES, SOURCE_OF, AssetSection
from edge_runtime.decide.drift import BlockTest
from edge_runtime.decide.follower import Follower, Scored
from edge_runtime.decide.life import Life
from edge_runtime.decide.tag_rules import Finding, TagRules
from edge_runtime.errors import BundleError
from edge_runtime.field.tag import Quality, Sample
from edge_runtime.infer.series import Anomaly, SeriesModel
from edge_runtime.outbox.recorder import Item

SHARES_SHOWN = 8
COLUMNS_SHOWN = 8
TAGS_SHOWN = 16
SECOND_NS = 1_000_000_000
LONGEST_TURN_S = 5.0  # a longer pause between two turns is no running time: the process was away


class Asset:
    """`models`: kind (``anomaly``, ``rul``) → model; none is a reason to stop."""

    def __init__(
        self, section: AssetSection, models: Mapping[str, SeriesModel], book: AlarmBook, start_ns: int
    ) -> None:
        self.section, self._book = section, book
        self.followers = {kind: Follower(model, section.drift) for kind, model in models.items()}
        self.rules = TagRules(section.rules, start_ns)
        self._start_ns = start_ns
        self._newest: dict[str, Scored] = {}
        self._running_sample: Sample | None = None
        self._turn_ns: int | None = None
        self._drifting: dict[str, tuple[int, frozenset[str]]] = {}
        self._reported: tuple[int, tuple[object, ...], float] | None = None
        self._lives = {kind: Life(section.remaining, model.manifest) for kind, model in models.items() if kind == "rul"}
        self.took_us: list[int] = []

    @property
    def tags(self) -> frozenset[str]:
        """Every tag that this asset listens to."""
        running = {self.section.running.tag} if self.section.running.tag else set()
        return frozenset(running.union(self.rules.tags, *(f.tags for f in self.followers.values())))

    def add(self, sample: Sample, now_ns: int) -> None:
        for follower in self.followers.values():
            follower.add(sample, now_ns)
        self.rules.add(sample, now_ns)
        if sample.tag == self.section.running.tag and sample.quality is Quality.GOOD and sample.value is not None:
            self._running_sample = sample

    def turn(self, now_ns: int, wall_ns: int) -> list[Item]:
        """Everything up to now; what is to be told beside the alarms, which are in the book."""
        out: list[Item] = []
        upto_ns = now_ns - round(self.section.lag_s * SECOND_NS)
        stale = self._stale(now_ns)
        running = self._running(now_ns, stale)
        self._suppress(running)
        for kind in list(self.followers):
            out += self._advance(kind, upto_ns, running, now_ns, wall_ns)
        for finding in self.rules.look(now_ns):
            self._rule(finding, running, now_ns, wall_ns)
        named = ", ".join(stale[:TAGS_SHOWN]) + (
            f" and {len(stale) - TAGS_SHOWN} more" if len(stale) > TAGS_SHOWN else ""
        )
        detail = {"reason": f"no fresh samples of {named}" if stale else "", "tags": list(stale[:TAGS_SHOWN])}
        self._observe(SAMPLES, NAMES[self.section.samples_severity] if stale else 0, detail, now_ns, wall_ns)
        self._count_hours(running, now_ns)
        out += self._report(now_ns)
        return out

    def use(self, kind: str, model: SeriesModel) -> None:
        """A model that was installed or mended while running."""
        self.followers[kind] = Follower(model, self.section.drift)
        if kind == "rul":
            self._lives[kind] = Life(self.section.remaining, model.manifest)

    # ── models ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _advance(self, kind: str, upto_ns: int, running: bool | None, now_ns: int, wall_ns: int) -> list[Item]:
        follower, out = self.followers[kind], []
        try:
            scored = follower.advance(upto_ns, running)
        except BundleError as error:
            del self.followers[kind]
            self._newest.pop(kind, None)
            body = {"asset": self.section.name, "model": kind, "reason": str(error), **_named(follower)}
            self._observe(SOURCE_OF[kind], None, {}, now_ns, wall_ns)
            return [("fault", "asset_engine_failed", body)]
        for row in scored:
            self._newest[kind] = row
            self.took_us.append(row.took_us)
            level, detail = self._anomaly(row) if kind == "anomaly" else self._remaining(row)
            self._observe(SOURCE_OF[kind], level, {**detail, **_named(follower)}, row.mono_ns, wall_ns)
            if row.test is not None:
                out += self._drift(kind, row.test, row.mono_ns)
        return out

    def _anomaly(self, row: Scored) -> tuple[int | None, dict[str, Any]]:
        a = row.anomaly
        if a is None:
            return None, {"reason": row.reason}
        level = NAMES.get(a.severity, NAMES["low"]) if a.anomalous else 0
        held = self._book.level(f"{self.section.name}/{ANOMALY}")
        if held and not level and a.score > a.threshold - self.section.alarms.hysteresis * abs(a.threshold):
            level = NAMES["low"]
        shares = [[name, round(share, 4)] for name, share in a.shares[:SHARES_SHOWN]]
        detail = {"value": a.score, "limit": a.threshold, "shares": shares}
        return int(level), {**detail, "reason": f"score {a.score:.4g}, threshold {a.threshold:.4g}"}

    def _remaining(self, row: Scored) -> tuple[int | None, dict[str, Any]]:
        r, life = row.remaining, self._lives["rul"]
        smoothed = life.add(r)
        if r is None or smoothed is None:
            return None, {"reason": row.reason}
        levels = self.section.remaining
        held = self._book.level(f"{self.section.name}/{REMAINING}")
        level = levels.level(smoothed * levels.hours_per_unit, held, self.section.alarms.hysteresis)
        reason = f"{smoothed:.4g} {r.unit} left (this row: {r.lower:.4g} to {r.upper:.4g})"
        return level, {"value": smoothed, "lower": r.lower, "upper": r.upper, "unit": r.unit, "reason": reason}

    def _drift(self, kind: str, test: BlockTest, now_ns: int) -> list[Item]:
        """One Event when drift begins, changes its columns, or ends; at most one in `least_hours`, except for its end."""
        columns = frozenset(c.name for c in test.drifted)
        since_ns, before = self._drifting.get(kind, (-(2**62), frozenset()))
        early = now_ns - since_ns < self.section.drift.least_hours * 3600 * SECOND_NS
        if columns == before or (columns and early):
            return []
        self._drifting[kind] = (now_ns if columns else since_ns, columns)
        shown = [{"column": c.name, "psi": c.psi, "ks": c.ks, "p": c.p} for c in test.drifted[:COLUMNS_SHOWN]]
        body = {
            "asset": self.section.name, "model": kind, "drifting": bool(columns), "count": len(columns),
            "tested": len(test.columns), "columns": shown, "samples": test.samples, "rate": test.rate,
            "level": test.level, **_named(self.followers[kind]),
        }  # fmt: skip
        return [("health", "drift", body)]

    # ── rules, samples, running ─────────────────────────────────────────────────────────────────────────────────────

    def _rule(self, finding: Finding, running: bool | None, now_ns: int, wall_ns: int) -> None:
        rule = finding.rule
        if rule.silent:
            return
        known = finding.on is not None and (running or not rule.while_running)
        level = (int(NAMES[rule.severity]) if finding.on else 0) if known else None
        detail: dict[str, Any] = {"reason": finding.reason, "rule": rule.kind, "limit": rule.limit}
        if finding.value is not None and math.isfinite(finding.value):
            detail["value"] = finding.value
        if rule.tag:
            detail["shares"] = [[rule.tag, 1.0]]
        self._observe(rule.name, level, detail, now_ns, wall_ns)

    def _stale(self, now_ns: int) -> tuple[str, ...]:
        found = dict.fromkeys(tag for follower in self.followers.values() for tag in follower.stale(now_ns))
        for rule in self.rules.rules:
            if rule.tag and rule.kind != "stale" and not self.rules.fresh(rule, now_ns):
                found[rule.tag] = None
        running = self.section.running
        if running.tag and self._running_value(now_ns) is None:
            found[running.tag] = None
        return tuple(found)

    def _running_value(self, now_ns: int) -> float | None:
        sample = self._running_sample
        if sample is None or sample.value is None or now_ns - sample.mono_ns > self.section.running.fresh_s * SECOND_NS:
            return None
        return float(sample.value)

    def _running(self, now_ns: int, stale: Sequence[str]) -> bool | None:
        """None: not known."""
        if not self.section.running.tag:
            return None if len(stale) == len(self.tags) else True
        value = self._running_value(now_ns)
        return None if value is None else value > self.section.running.above

    def _suppress(self, running: bool | None) -> None:
        if running is None or not self.section.running.tag:
            return
        sources = [ANOMALY, REMAINING, *(r.name for r in self.section.rules if r.while_running and not r.silent)]
        for source in sources:
            self._book.suppress(f"{self.section.name}/{source}", not running, "" if running else "the machine stands")

    def _count_hours(self, running: bool | None, now_ns: int) -> None:
        if self._turn_ns is not None and running:
            self._book.run(self.section.name, min((now_ns - self._turn_ns) / 1e9, LONGEST_TURN_S))
        self._turn_ns = now_ns

    def _observe(self, source: str, level: int | None, detail: Mapping[str, Any], now_ns: int, wall_ns: int) -> None:
        self._book.observe(f"{self.section.name}/{source}", level, detail, now_ns, wall_ns)

    # ── what is told of the asset's state ───────────────────────────────────────────────────────────────────────────

    def _report(self, now_ns: int) -> list[Item]:
        """By exception: at once where quality, verdict or severity changed, or the score moved; else every `report_s`."""
        anomaly = self._newest.get("anomaly")
        score = (
            anomaly.anomaly.score / max(abs(anomaly.anomaly.threshold), 1e-12) if anomaly and anomaly.anomaly else 0.0
        )
        qualities = tuple((kind, row.quality, row.reason[:20]) for kind, row in self._newest.items())
        state: tuple[object, ...] = (qualities, anomaly is not None and anomaly.anomaly and anomaly.anomaly.anomalous)
        if self._reported is not None:
            at_ns, told, told_score = self._reported
            moved = abs(score - told_score) >= self.section.report_share > 0
            if state == told and not moved and now_ns - at_ns < self.section.report_s * SECOND_NS:
                return []
        self._reported = (now_ns, state, score)
        return [("telemetry", f"asset.{self.section.name}", self.state())]

    def state(self) -> dict[str, Any]:
        """As the cloud's projection reads it."""
        body: dict[str, Any] = {
            "asset": self.section.name,
            "operating_h": round(self._book.hours_s[self.section.name] / 3600, 4),
            "models": sorted(self.followers),
        }
        if row := self._newest.get("anomaly"):
            body |= {"anomaly": {"quality": row.quality.value, "reason": row.reason, **_score(row.anomaly)}}
            body["anomaly"] |= _named(self.followers["anomaly"])
        if row := self._newest.get("rul"):
            answer = {**vars(row.remaining), "smoothed": self._lives["rul"].value} if row.remaining else {}
            body |= {"remaining": {"quality": row.quality.value, "reason": row.reason, **answer}}
            body["remaining"] |= _named(self.followers["rul"])
        return body


def listed(tags: Sequence[str]) -> str:
    """Some of them, and how many more there are: an Event is bounded."""
    more = len(tags) - TAGS_SHOWN
    return ", ".join(tags[:TAGS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _score(a: Anomaly | None) -> dict[str, Any]:
    if a is None:
        return {}
    shares = [[name, round(share, 4)] for name, share in a.shares[:SHARES_SHOWN]]
    return {
        "score": a.score, "threshold": a.threshold, "anomalous": a.anomalous, "severity": a.severity, "shares": shares
    }  # fmt: skip


def _named(follower: Follower) -> dict[str, str]:
    """Which bundle and which view an Event comes from."""
    model = follower.model
    return {"bundle_digest": model.digest, "view_sha256": model.manifest.view_sha256}
