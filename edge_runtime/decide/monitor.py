"""Monitor: the assets of a device, turn by turn. It owns the alarm book; time, models, samples, disk and outbox are given to it.

Each turn: the samples that came, every asset, the shelves; then what is to be told, alarms first. A disk that refuses stops
nothing: alarms wait in the book and the rest in the Recorder, and both are tried again each turn.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from edge_runtime import log
from edge_runtime.clock import Clock
from edge_runtime.decide.alarm_book import AlarmBook
from edge_runtime.decide.alarm_file import AlarmFile
from edge_runtime.decide.asset import TAGS_SHOWN, Asset, listed
from edge_runtime.decide.asset_config import AssetSection
from edge_runtime.decide.points import ALARM_COMMANDS, AlarmRequest
from edge_runtime.errors import BundleError, ResourceError
from edge_runtime.field.judge import Exceptions
from edge_runtime.field.tag import Gap, Quality, Reason, Report, Sample, Tag, Wave
from edge_runtime.infer.series import SeriesModel
from edge_runtime.infer.wave import samples_of
from edge_runtime.outbox.recorder import Item, Recorder

SECOND_NS = 1_000_000_000
LOOK_EVERY_S = 15.0  # for a bundle that was installed or mended
RETRY_LIMIT_S = 3600.0
SAVE_EVERY_S = 60.0  # operating hours
METRIC_EVERY_S = 60.0


class Loaded(NamedTuple):
    """What is in one slot set: `digest` "" where nothing is installed."""

    digest: str
    load: Callable[[], SeriesModel]


class Monitor:
    """`slot`: slot set → what is active there now. `refused`: slot set → why the bundle that the configuration names was not
    installed. `tags`: the configured tags, for what is told of their values. `told_models`: slot set, digest of the
    bundle that was taken there, and why it was refused, "" where it runs."""

    def __init__(
        self,
        sections: Sequence[AssetSection],
        tags: Mapping[str, Tag],
        slot: Callable[[str], Loaded],
        refused: Mapping[str, str],
        recorder: Recorder,
        file: AlarmFile,
        clock: Clock,
        told_models: Callable[[str, str, str], None] = lambda slot_set, digest, refused: None,
    ) -> None:
        self._told_models = told_models
        self._clock, self._recorder, self._file, self._slot = clock, recorder, file, slot
        self._tags = dict(tags)
        self._news = {name: Exceptions(tag) for name, tag in tags.items()}
        self._running: dict[str, str] = {}  # slot set → digest of the bundle that was taken last
        self._again: dict[str, tuple[int, int]] = {}  # slot set of a failed engine → (failures, when to try again)
        self._said: dict[str, str] = {}
        self._reports: Counter[str] = Counter()
        now_ns = clock.monotonic_ns()
        saved, told, problem = file.load(now_ns)
        self.book = AlarmBook([place for section in sections for place in section.places], saved, told)
        if problem:
            recorder.record(("fault", "alarm_state_damaged", {"reason": problem}))
        self.assets = {section.name: Asset(section, {}, self.book, now_ns) for section in sections}
        for slot_set, reason in refused.items():
            recorder.record(("fault", "asset_bundle_refused", {"slot_set": slot_set, "reason": reason}))
        self._look_ns = self._save_ns = self._metric_ns = now_ns
        self._look(told_missing=True)
        self._tell_unknown_tags()
        self.book.dirty = True  # so that there is a list from the start
        self._store(now_ns)

    # ── in ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, reports: Sequence[Report]) -> None:
        items: list[Item] = []
        now_ns = self._clock.monotonic_ns()
        for report in reports:
            if isinstance(report, Gap):
                items.append(("telemetry", "gap", dict(vars(report))))
                continue
            found = samples_of(report) if isinstance(report, Wave) else [report]
            for sample in map(_finite, found):
                self._reports[sample.quality.value] += 1
                for asset in self.assets.values():
                    asset.add(sample, now_ns)
                news = self._news.get(sample.tag)
                if news is not None and news.worth(sample):
                    items.append(("telemetry", f"tag.{sample.tag}", self._told(sample)))
        if items:
            self._recorder.record(*items)

    def _told(self, sample: Sample) -> dict[str, object]:
        tag = self._tags[sample.tag]
        body: dict[str, object] = {
            "tag": sample.tag,
            "value": sample.value,
            "quality": sample.quality.value,
            "unit": tag.unit,
        }
        return body | {"reason": sample.reason.value, "sample_mono_ns": sample.mono_ns}

    def ask(self, action: str, alarm_id: str, by: str, for_s: float = 0.0) -> str:
        """What an operator asks; why it was not done, "" where it was. It is on the disk when this returns ""."""
        now_ns = self._clock.monotonic_ns()
        reason = self.book.ask(action, alarm_id, by, for_s, now_ns)
        if not reason and not self._store(now_ns):
            return "it is done, but the disk refuses to keep it; it is tried again"
        return reason

    def command(self, request: AlarmRequest) -> None:
        """What the cloud asks, admitted by `link`; its end is told as an Event on stream `command`."""
        if self._clock.monotonic_ns() > request.until_mono_ns:
            kind, reason = "expired", "its time was up when its turn came"
        else:
            reason = self.ask(ALARM_COMMANDS[request.name], request.alarm, request.source, request.for_s)
            kind = "refused" if reason else "done"
        self._recorder.record(("command", kind, {**request.body(), "reason": reason}))

    # ── turn ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def turn(self) -> None:
        now_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
        if now_ns - self._look_ns >= LOOK_EVERY_S * SECOND_NS:
            self._look_ns = now_ns
            self._look()
        items: list[Item] = []
        for asset in self.assets.values():
            items += asset.turn(now_ns, wall_ns)
        self.book.expire(now_ns)
        if now_ns - self._metric_ns >= METRIC_EVERY_S * SECOND_NS:
            self._metric_ns = now_ns
            items += [("metric", "monitor", self._metric())]
        if now_ns - self._save_ns >= SAVE_EVERY_S * SECOND_NS:
            self.book.dirty = True
        self._store(now_ns)
        if items or self._recorder.waiting:
            self._say("events", self._recorder.error if not self._recorder.record(*items) else "")

    def close(self) -> None:
        self.book.dirty = True  # operating hours
        self._store(self._clock.monotonic_ns())
        self._recorder.record()

    def _store(self, now_ns: int) -> bool:
        try:
            if self.book.dirty:
                self._save_ns = now_ns
            if self._file.store(self.book, now_ns, self._clock.wall_ns()):
                self._recorder.poke()
        except ResourceError as error:
            self._say("alarms", str(error))
            return False
        self._say("alarms", "")
        return True

    def _say(self, what: str, problem: str) -> None:
        """Into the log, once for each problem: the disk that would take an Event is the one that refuses."""
        if problem and problem != self._said.get(what):
            log.say(logging.ERROR, f"{what} cannot be stored; they are kept and tried again", reason=problem)
        self._said[what] = problem

    def _metric(self) -> dict[str, object]:
        took = sorted(us for asset in self.assets.values() for us in asset.took_us)
        for asset in self.assets.values():
            asset.took_us.clear()
        body: dict[str, object] = {"samples": dict(self._reports), "rows": len(took)}
        if took:
            body |= {"p50_us": took[len(took) // 2], "max_us": took[-1]}
        return body | {"refused": self._refused()}

    def _refused(self) -> dict[str, dict[str, int]]:
        """Samples that no window used, by asset and model."""
        return {
            f"{name}/{kind}": {reason: count for reason, count in vars(follower.refused).items() if count}
            for name, asset in self.assets.items()
            for kind, follower in asset.followers.items()
        }

    # ── bundles ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _look(self, told_missing: bool = False) -> None:
        """Take what is active in each slot set, where it is new or the engine that ran has failed."""
        items: list[Item] = []
        for asset in self.assets.values():
            for kind in ("anomaly", "rul"):
                slot_set = asset.section.slot_set(kind)
                named = slot_set in asset.section.slot_sets
                items += self._take_bundle(asset, kind, slot_set, tell=named and told_missing)
        if items:
            self._recorder.record(*items)
            self._tell_unknown_tags()

    def _take_bundle(self, asset: Asset, kind: str, slot_set: str, tell: bool) -> list[Item]:
        where = {"asset": asset.section.name, "model": kind, "slot_set": slot_set}
        found = None
        try:
            found = self._slot(slot_set)
            if not found.digest:
                reason = f"no bundle is installed in slot set {slot_set}; only rules watch {asset.section.name}"
                return [("fault", "asset_bundle_missing", {**where, "reason": reason})] if tell else []
            same = self._running.get(slot_set) == found.digest
            if same and (kind in asset.followers or not self._due(slot_set)):
                return []
            model = found.load()
            if model.manifest.kind != kind:
                raise BundleError(
                    f"the bundle in slot set {slot_set} is of kind {model.manifest.kind}, expected {kind}"
                )
        except BundleError as error:
            if found is not None:
                self._told_models(slot_set, found.digest, str(error))
            if self._said.get(slot_set) == str(error):
                return []
            self._said[slot_set] = str(error)
            return [("fault", "asset_bundle_refused", {**where, "reason": str(error)})]
        self._said.pop(slot_set, None)
        self._running[slot_set] = found.digest
        self._told_models(slot_set, found.digest, "")
        asset.use(kind, model)
        faults: list[Item] = [
            ("fault", "variant_refused", {"bundle_digest": model.digest, **vars(refusal)}) for refusal in model.refused
        ]
        body = {"bundle_digest": model.digest, "view_sha256": model.manifest.view_sha256, "engine": model.engine.name}
        return [("health", "asset_model_loaded", {**where, **body, "variant": model.engine.variant}), *faults]

    def _due(self, slot_set: str) -> bool:
        """A failed engine is loaded again after 15 s, 30 s, … at most an hour."""
        now_ns = self._clock.monotonic_ns()
        failures, due_ns = self._again.get(slot_set, (0, now_ns))
        if now_ns < due_ns:
            return False
        pause_s = min(RETRY_LIMIT_S, LOOK_EVERY_S * 2.0 ** min(failures + 1, 10))
        self._again[slot_set] = (failures + 1, now_ns + round(pause_s * SECOND_NS))
        return True

    def _tell_unknown_tags(self) -> None:
        for asset in self.assets.values():
            missing = sorted(
                tag for tag in asset.tags if tag not in self._tags and tag.rpartition(".")[0] not in self._tags
            )
            text = listed(missing)
            if missing and self._said.get(f"tags {asset.section.name}") != text:
                self._said[f"tags {asset.section.name}"] = text
                body = {
                    "asset": asset.section.name,
                    "tags": missing[:TAGS_SHOWN],
                    "reason": f"no [[tags]] table names {text}",
                }
                self._recorder.record(("fault", "asset_tags_missing", body))


def _finite(sample: Sample) -> Sample:
    """Whatever a source gives: what is no finite number is BAD from here on."""
    if sample.value is None or math.isfinite(sample.value):
        return sample
    return replace(sample, value=None, quality=Quality.BAD, reason=Reason.NOT_A_NUMBER)
