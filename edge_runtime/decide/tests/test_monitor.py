"""Monitor over a real small bundle, a real outbox and a fake clock: from samples to alarms and Events, and what happens
when the model, the samples, the bundle or the disk are not as they should be."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.decide import alarm_file
from edge_runtime.decide.alarm_file import AlarmFile
from edge_runtime.decide.alarms import AlarmSettings
from edge_runtime.decide.asset_config import AssetBundles, AssetSection, DriftSettings, RemainingLevels, Running
from edge_runtime.decide.drift import BlockTest
from edge_runtime.decide.monitor import Loaded, Monitor
from edge_runtime.decide.tag_rules import Rule
from edge_runtime.errors import BundleError, ResourceError
from edge_runtime.field.tag import Gap, Quality, Sample, Tag, Wave
from edge_runtime.infer.engine import Engine
from edge_runtime.infer.reference import ReferenceEngine
from edge_runtime.infer.series import SeriesModel
from edge_runtime.infer.series_bundle import load
from edge_runtime.outbox.recorder import Recorder
from edge_runtime.outbox.store import Outbox
from edge_runtime.tests.series_bundles import make_series_bundle

TAGS = {name: Tag(name, "float32", unit="u", report_every_s=1e6) for name in ("temperature", "vibration", "speed")}
ALARMS = AlarmSettings(on_delay_s=2.0, off_delay_s=3.0)
HOT = Rule("hot", "above", "speed", 2000.0, severity="high", fresh_s=5.0)
SECTION = AssetSection("pump", rules=(HOT,), alarms=ALARMS, lag_s=0.0)


class Failing:
    """An engine that fails, or answers nonsense, from a given call on."""

    def __init__(self, engine: Engine, calls: int, answer: float | None = None) -> None:
        self._engine, self._left, self._answer = engine, calls, answer
        self.name, self.variant = engine.name, engine.variant

    def infer(self, x: Any) -> Any:
        self._left -= 1
        if self._left >= 0:
            return self._engine.infer(x)
        if self._answer is None:
            raise BundleError("engine: it broke")
        return np.full(3, self._answer, np.float32)

    def close(self) -> None: ...


class Bench:
    """One device with one asset, second by second."""

    def __init__(self, folder: Path, section: AssetSection = SECTION, kinds: tuple[str, ...] = ("anomaly",)) -> None:
        self.folder, self.section, self.clock = folder, section, FakeClock()
        self.paths = {kind: make_series_bundle(folder / kind, kind=kind, signed=False) for kind in kinds}
        self.wrap: Callable[[Engine], Any] = lambda engine: engine
        self.digests = {kind: load(path).digest for kind, path in self.paths.items()}
        self.refused: dict[str, str] = {}
        self.rng = np.random.default_rng(0)
        self.start()

    def start(self) -> None:
        self.outbox = Outbox(self.folder / "outbox.db", "dev", "boot", self.clock)
        file = AlarmFile(self.folder / alarm_file.NAME, "boot", self.outbox)
        self.monitor = Monitor(
            [self.section], TAGS, self.slot, self.refused, Recorder(self.outbox), file, self.clock
        )  # fmt: skip

    def stop(self) -> None:
        self.monitor.close()
        self.outbox.close()

    def slot(self, slot_set: str) -> Loaded:
        kind = slot_set.rpartition("-")[2]
        return Loaded(self.digests.get(kind, ""), lambda: self.model(kind))

    def model(self, kind: str) -> SeriesModel:
        bundle = load(self.paths[kind])
        engine = self.wrap(ReferenceEngine(bundle.path / "model.fp32.onnx", "fp32"))
        return SeriesModel(bundle.manifest, bundle.digest, engine, bundle.reference)

    def sample(self, tag: str, value: float | None, quality: Quality = Quality.GOOD, ahead_s: float = 0.0) -> Sample:
        mono_ns = self.clock.monotonic_ns() + round(ahead_s * 1e9)
        return Sample(tag, value, quality, mono_ns, self.clock.wall_ns())

    def run(self, seconds: int, **values: float | None) -> None:
        """Second by second; a tag that is not named is normal, one that is None is silent."""
        for _ in range(seconds):
            self.clock.advance(1.0)
            normal = {
                "temperature": self.rng.normal(60.0, 1.0),
                "vibration": self.rng.normal(4.0, 0.5),
                "speed": 1500.0,
            }
            found = {**normal, **values}
            self.monitor.take([self.sample(tag, v) for tag, v in found.items() if v is not None])
            self.monitor.turn()

    def events(self, stream: str = "alarm") -> list[dict[str, Any]]:
        lines = [json.loads(r.line) for r in self.outbox.pending(100_000, 10**9, streams=[stream])]
        return [{"kind": line["kind"], **line["body"]} for line in lines]

    def told(self) -> list[tuple[str, str, str]]:
        return [(e["kind"], e["source"], e["severity"]) for e in self.events()]

    def state(self) -> dict[str, Any]:
        return self.monitor.assets["pump"].state()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_an_anomaly_becomes_an_alarm_with_its_tags_and_clears(bench: Bench) -> None:
    bench.run(60)
    assert bench.told() == []
    assert bench.state()["anomaly"]["quality"] == "good"
    bench.run(20, vibration=8.0)
    bench.run(20)
    assert bench.told() == [("raised", "anomaly", "low"), ("returned", "anomaly", "low")]
    raised = bench.events()[0]
    assert raised["shares"][0][0] == "vibration"
    assert raised["shares"][0][1] > 0.5
    assert sum(share for _, share in raised["shares"]) == pytest.approx(1.0, abs=1e-3)
    assert raised["value"] > raised["limit"] == 1.5
    assert raised["bundle_digest"] == bench.digests["anomaly"]
    assert raised["view_sha256"] == load(bench.paths["anomaly"]).manifest.view_sha256
    assert 60 / 3600 < raised["operating_h"] < 80 / 3600
    bench.stop()


def test_telemetry_comes_by_exception(bench: Bench) -> None:
    bench.run(100, temperature=60.0, vibration=4.0)
    found = bench.events("telemetry")
    kinds = [e["kind"] for e in found]
    assert kinds.count("tag.temperature") == 1
    assert 10 <= kinds.count("asset.pump") <= 14  # every 10 s, and where the quality changed
    assert found[-1]["anomaly"]["score"] == pytest.approx(bench.state()["anomaly"]["score"])
    bench.stop()


def test_rules_go_on_without_a_model(tmp_path: Path) -> None:
    bench = Bench(tmp_path, AssetSection("pump", AssetBundles(Path("x")), (HOT,), ALARMS, lag_s=0.0), kinds=())
    bench.run(10, speed=2500.0)
    assert bench.told() == [("raised", "hot", "high")]
    assert [e["kind"] for e in bench.events("fault")] == ["asset_bundle_missing"]
    bench.stop()


@pytest.mark.parametrize("answer", [None, math.nan, math.inf])
def test_an_engine_that_fails_is_put_away_and_tried_again(tmp_path: Path, answer: float | None) -> None:
    bench = Bench(tmp_path, kinds=())
    bench.wrap = lambda engine: Failing(engine, 20, answer)
    bench.paths["anomaly"] = make_series_bundle(tmp_path / "anomaly", signed=False)
    bench.digests["anomaly"] = load(bench.paths["anomaly"]).digest  # installed while it runs
    bench.run(40, speed=2500.0)
    assert [e["kind"] for e in bench.events("fault")] == ["asset_engine_failed"]
    assert bench.told() == [("raised", "hot", "high")]
    assert bench.state()["models"] == []
    bench.wrap = lambda engine: engine
    bench.run(60)
    assert bench.state()["models"] == ["anomaly"]
    assert [e["kind"] for e in bench.events("health")] == ["asset_model_loaded"] * 2
    assert all(e["source"] != "anomaly" for e in bench.events())
    bench.stop()


def test_a_bundle_that_is_refused_leaves_the_rules_and_is_told_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, kinds=())
    bench.paths["anomaly"], bench.digests["anomaly"] = tmp_path / "gone", "d" * 64
    bench.run(60, speed=2500.0)
    assert [e["kind"] for e in bench.events("fault")] == ["asset_bundle_refused"]
    assert bench.told() == [("raised", "hot", "high")]
    bench.stop()


def test_lost_samples_hold_every_alarm_and_raise_one_of_their_own(bench: Bench) -> None:
    bench.run(30, vibration=8.0, speed=2500.0)
    before = bench.told()
    bench.run(60, vibration=None, temperature=None, speed=None)
    assert bench.told() == [*before, ("raised", "samples", "medium")]
    assert bench.events()[-1]["tags"] == ["vibration"]  # it was the first to be stale
    assert bench.state()["anomaly"] == {
        "quality": "uncertain", "reason": "nothing new from temperature, vibration", "bundle_digest": bench.digests["anomaly"],
        "view_sha256": load(bench.paths["anomaly"]).manifest.view_sha256,
    }  # fmt: skip
    hours = bench.state()["operating_h"]
    bench.run(10, vibration=None, temperature=None, speed=None)
    assert bench.state()["operating_h"] == hours  # nobody knows whether it ran
    bench.run(30)
    assert sorted(bench.told()[len(before) + 1 :]) == [
        ("returned", "anomaly", "low"), ("returned", "hot", "high"), ("returned", "samples", "medium"),
    ]  # fmt: skip
    bench.stop()


def test_stale_samples_raise_nothing_but_staleness(bench: Bench) -> None:
    bench.run(30)
    bench.run(1, vibration=9.0)
    bench.run(60, vibration=None)
    assert bench.told() == [("raised", "samples", "medium")]
    bench.stop()


def test_many_silent_tags_are_told_in_a_bounded_event(tmp_path: Path) -> None:
    rules = tuple(Rule(f"r{i}", "above", f"{'tag' * 40}{i}", 1.0, silent=True) for i in range(600))
    bench = Bench(tmp_path, AssetSection("pump", rules=rules, alarms=ALARMS, lag_s=0.0), kinds=())
    bench.run(10)
    (raised,) = bench.events()
    assert (raised["source"], len(raised["tags"])) == ("samples", 16)
    assert raised["reason"].endswith("and 584 more")
    bench.stop()


def test_a_machine_that_stands_is_suppressed_and_counts_no_hours(tmp_path: Path) -> None:
    section = AssetSection("pump", rules=(HOT,), alarms=ALARMS, running=Running("speed", 10.0), lag_s=0.0)
    bench = Bench(tmp_path, section)
    bench.run(20)
    hours = bench.state()["operating_h"]
    bench.run(30, speed=0.0, vibration=0.0)
    assert bench.told() == [("suppressed", "anomaly", ""), ("suppressed", "remaining", "")]
    assert bench.state()["operating_h"] == pytest.approx(hours, abs=2e-4)
    bench.run(30)
    assert [t[0] for t in bench.told()[2:]] == ["resumed", "resumed"]
    bench.stop()


def test_remaining_life_becomes_a_severity(tmp_path: Path) -> None:
    levels = RemainingLevels(times_faster=360.0, critical_h=1.0, high_h=3.0, medium_h=6.0)
    bench = Bench(tmp_path, AssetSection("pump", alarms=ALARMS, remaining=levels, lag_s=0.0), kinds=("rul",))
    bench.run(40, temperature=60.0, vibration=4.0)
    remaining = bench.state()["remaining"]
    assert remaining["lower"] < remaining["remaining"] < remaining["upper"]
    assert remaining["smoothed"] == pytest.approx(remaining["remaining"], abs=2.0)
    assert bench.told() == []
    bench.run(20, temperature=70.0, vibration=9.0)
    assert bench.told()[0][:2] == ("raised", "remaining")
    assert bench.events()[0]["unit"] == "h"
    bench.stop()


def test_drift_is_told_once_and_its_end_too(tmp_path: Path) -> None:
    """The reference of this bundle is uniform from 0 to 1, and its scores from 0 to 2: normal samples are none of that."""
    settings = DriftSettings(samples=30, rate=0.01, stride_rows=1)
    bench = Bench(tmp_path, AssetSection("pump", drift=settings, lag_s=0.0))
    bench.run(100)
    found = [e for e in bench.events("health") if e["kind"] == "drift"]
    assert len(found) == 1  # three blocks drifted, and one is told an hour
    assert (found[0]["asset"], found[0]["model"], found[0]["drifting"]) == ("pump", "anomaly", True)
    assert found[0]["bundle_digest"] == bench.digests["anomaly"]
    assert found[0]["columns"][0]["p"] < found[0]["level"] < 0.01
    calm = BlockTest(30, 0.01, 1e-3, ())
    ((_, _, body),) = bench.monitor.assets["pump"]._drift("anomaly", calm, bench.clock.monotonic_ns())
    assert body["drifting"] is False
    assert bench.monitor.assets["pump"]._drift("anomaly", calm, bench.clock.monotonic_ns()) == []
    bench.stop()


# ── samples as they should not be: a stated quality, never a NaN ────────────────────────────────────────────────────────

NEVER = {
    "NaN": lambda b: [b.sample("vibration", math.nan)],
    "infinite": lambda b: [b.sample("vibration", math.inf)],
    "bad": lambda b: [b.sample("vibration", None, Quality.BAD)],
    "uncertain": lambda b: [b.sample("vibration", 99.0, Quality.UNCERTAIN)],
    "future": lambda b: [b.sample("vibration", 99.0, ahead_s=3600)],
    "out of order": lambda b: [b.sample("vibration", 99.0, ahead_s=-30)],
}


@pytest.mark.parametrize("name", NEVER)
def test_samples_that_must_not_count_make_the_window_uncertain_and_no_alarm(bench: Bench, name: str) -> None:
    bench.run(30)
    for _ in range(30):
        bench.clock.advance(1.0)
        bench.monitor.take([bench.sample("temperature", 60.0), *NEVER[name](bench)])
        bench.monitor.turn()
    anomaly = bench.state()["anomaly"]
    assert (anomaly["quality"], anomaly["reason"]) == ("uncertain", "nothing new from vibration")
    assert "score" not in anomaly
    assert bench.told() == [("raised", "samples", "medium")]
    bench.run(30)
    assert bench.state()["anomaly"]["quality"] == "good"
    bench.stop()


@pytest.mark.parametrize(
    "values", [{"vibration": 4000.0, "temperature": 60.0}, {"vibration": 4.0, "temperature": 333.0}]
)
def test_unscaled_values_are_a_finite_score_and_an_alarm(bench: Bench, values: dict[str, float]) -> None:
    """Values in another unit are far from normal: they alarm, and limits of the scaler keep the score finite."""
    bench.run(30, **values)
    anomaly = bench.state()["anomaly"]
    assert math.isfinite(anomaly["score"])
    assert anomaly["score"] <= 20.0
    assert ("raised", "anomaly", "critical") in bench.told()
    bench.stop()


def test_constant_samples_have_a_finite_score(bench: Bench) -> None:
    bench.run(60, vibration=4.0, temperature=60.0)
    anomaly = bench.state()["anomaly"]
    assert anomaly["quality"] == "good"
    assert math.isfinite(anomaly["score"])
    bench.stop()


def test_a_single_row_is_no_window(bench: Bench) -> None:
    bench.run(1)
    anomaly = bench.state()["anomaly"]
    assert anomaly["quality"] == "uncertain"
    assert anomaly["reason"] == "1 of 5 rows so far"
    bench.stop()


def test_every_number_that_was_told_is_finite(bench: Bench) -> None:
    for values in ({}, {"vibration": math.nan}, {"vibration": 1e300}, {"vibration": -1e300, "temperature": None}, {}):
        bench.run(15, **values)
    for stream in ("alarm", "telemetry", "fault", "health", "metric"):
        json.dumps(bench.events(stream), allow_nan=False)
    bench.stop()


# ── restart, operator, disk ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_restart_tells_nothing_twice_and_forgets_nothing(bench: Bench) -> None:
    bench.run(30, speed=2500.0)
    assert bench.monitor.ask("ack", "pump/hot", "ann") == ""
    hours = bench.state()["operating_h"]
    bench.stop()
    bench.start()
    bench.run(20, speed=2500.0)
    assert bench.told() == [("raised", "hot", "high"), ("acknowledged", "hot", "high")]
    assert bench.events()[-1]["by"] == "ann"
    assert bench.state()["operating_h"] > hours
    bench.run(20)
    assert bench.told()[-1] == ("returned", "hot", "high")
    assert bench.events()[-1]["state"] == "normal"
    bench.stop()


def test_a_killed_monitor_loses_no_alarm(bench: Bench) -> None:
    bench.run(30, speed=2500.0)
    bench.outbox.close()  # no goodbye
    bench.start()
    bench.run(20, speed=2500.0)
    assert bench.told() == [("raised", "hot", "high")]
    bench.stop()


def test_a_disk_that_refuses_stops_nothing_and_loses_no_alarm(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run(5)
    real = Outbox.append_many

    def full(*_: Any, **__: Any) -> Any:
        raise ResourceError("outbox.db: the disk is full")

    monkeypatch.setattr(Outbox, "append_many", full)
    bench.run(20, speed=2500.0)
    monkeypatch.setattr(Outbox, "append_many", real)
    assert bench.told() == []
    bench.run(2, speed=2500.0)
    assert bench.told() == [("raised", "hot", "high")]
    bench.stop()


def test_vibration_blocks_become_samples_and_gaps_are_told(tmp_path: Path) -> None:
    rule = Rule("rms", "above", "block.rms", 0.5, fresh_s=5.0)
    bench = Bench(tmp_path, AssetSection("pump", rules=(rule,), alarms=ALARMS, lag_s=0.0), kinds=())
    block = tuple(math.sin(i / 3) for i in range(256))
    for _ in range(10):
        bench.clock.advance(1.0)
        now = bench.clock.monotonic_ns()
        bench.monitor.take(
            [Wave("block", block, 1000.0, Quality.GOOD, now, 0), Gap("block", 0, now, 0, 0, "no answer")]
        )
        bench.monitor.turn()
    (raised,) = bench.events()
    assert raised["value"] == pytest.approx(math.sqrt(0.5), abs=0.01)
    assert [e["cause"] for e in bench.events("telemetry") if e["kind"] == "gap"] == ["no answer"] * 10
    assert [e["tags"] for e in bench.events("fault")] == [["block.rms"]]
    bench.stop()
