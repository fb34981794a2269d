"""Each metric says what is, from a real outbox and the kernel's own files; the reference page has the same table."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_runtime import __version__
from edge_runtime.clock import FakeClock
from edge_runtime.config import DeviceConfig, DeviceSection
from edge_runtime.exposition import Page
from edge_runtime.link.metrics import CONTROL, LINK, TABLE, Offset, Reader
from edge_runtime.outbox.budget import du_bytes
from edge_runtime.outbox.policy import ClassPolicy, Storage
from edge_runtime.outbox.store import Outbox
from edge_runtime.processes import look, processes
from edge_runtime.wire import latency
from edge_runtime.wire.envelope import STREAMS

DOCS = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
BUDGET = 64 * 1024 * 1024


class FakeUplink:
    connected = True
    retry_s = 0.0

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter(connections=3, failures=2, batches=9, records=70, bytes=4000)


def scrape(reader: Reader) -> dict[str, dict[tuple[str, ...], float]]:
    """Sample name → label values, in the order of the names of the labels → value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(Page(TABLE, reader).answer("")[0].decode()):
        for s in family.samples:
            found.setdefault(s.name, {})[tuple(s.labels.values())] = s.value
    return found


class Stage:
    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.storage = Storage(budget_bytes=BUDGET, classes={"metric": ClassPolicy("thin", retention_s=50)})
        self.outbox = Outbox(folder / "outbox.db", "dev1", "boot", self.clock, self.storage)
        self.uplink = FakeUplink()
        device = DeviceConfig(DeviceSection("dev1", folder), storage=self.storage)
        self.reader = Reader(
            device, "boot", self.outbox, self.uplink, self.clock, lambda: Offset(-1_500_000_000, 3_000_000)
        )


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_the_queue_by_stream(stage: Stage) -> None:
    stage.outbox.append("alarm", "hot", {"c": 90})
    stage.clock.advance(30)
    stage.outbox.append_many([("decision", "decision", {"part_seq": n}) for n in range(5)])
    stage.outbox.ack({"decision": 2})
    found = scrape(stage.reader)
    assert found["gudgeon_device_info"] == {(stage.outbox.chain, "dev1", __version__): 1}
    assert found["gudgeon_outbox_records"] == {(s,): {"alarm": 1, "decision": 3}.get(s, 0) for s in STREAMS}
    assert found["gudgeon_outbox_bytes"]["alarm",] == stage.outbox.backlog()["alarm"].size_bytes > 100
    assert found["gudgeon_outbox_oldest_age_seconds"] == {("alarm",): 30, ("decision",): 0}
    assert found["gudgeon_outbox_appended_records_total"]["decision",] == 5
    assert found["gudgeon_outbox_readable"] == {(): 1}
    assert "gudgeon_outbox_shed_records_total" not in found


def test_what_was_given_up_by_stream_and_policy(stage: Stage) -> None:
    for _ in range(10):
        stage.outbox.append("metric", "control", {})
        stage.clock.advance(10)
    stage.outbox.maintain()
    gone = 10 - scrape(stage.reader)["gudgeon_outbox_records"]["metric",]
    assert gone >= 4
    assert scrape(stage.reader)["gudgeon_outbox_shed_records_total"] == {("retention", "metric"): gone}


def test_the_disk_as_du_sees_it(stage: Stage, tmp_path: Path) -> None:
    found = scrape(stage.reader)
    assert found["gudgeon_disk_used_bytes"] == {(): du_bytes(tmp_path)}
    assert found["gudgeon_disk_budget_bytes"] == {(): BUDGET}
    assert found["gudgeon_outbox_wal_bytes"] == {(): (tmp_path / "outbox.db-wal").stat().st_size}


def test_the_line_and_the_clock(stage: Stage) -> None:
    found = scrape(stage.reader)
    assert found["gudgeon_link_connected"] == {(): 1}
    assert found["gudgeon_link_connections_total"] == {(): 3}
    assert found["gudgeon_link_sent_records_total"] == {(): 70}
    assert found["gudgeon_link_refused_batches_total"] == {(): 0}
    assert found["gudgeon_clock_offset_seconds"] == {(): -1.5}
    assert found["gudgeon_clock_offset_uncertainty_seconds"] == {(): 0.003}
    assert "gudgeon_clock_uncertainty_seconds" not in found  # the clock was never set
    stage.clock.uncertainty_ns = 20_000_000
    assert scrape(stage.reader)["gudgeon_clock_uncertainty_seconds"] == {(): 0.02}


def test_what_control_told_last(stage: Stage) -> None:
    counts = [0] * latency.BUCKETS
    counts[latency.bucket(2500)] = 4
    counts[-1] = 1
    body = {"pass": 3, "reject": 2, "missed": 7, "health": "degraded", "records_waiting": 1, "records_lost": 0}
    stage.outbox.append("metric", "control", body | {"latency_counts": counts, "latency_sum_us": 250_000})
    stage.clock.advance(3)
    found = scrape(stage.reader)
    assert found["gudgeon_control_told_age_seconds"] == {(): 3}
    assert found["gudgeon_control_health"] == {("nominal",): 0, ("degraded",): 1, ("safe",): 0}
    assert found["gudgeon_control_answers_total"] == {("pass",): 3, ("reject",): 2, ("review",): 0, ("fault",): 0}
    assert found["gudgeon_control_missed_triggers_total"] == {(): 7}
    buckets = found["gudgeon_control_answer_latency_seconds_bucket"]
    assert (buckets["0.002",], buckets["0.003",], buckets["0.1",], buckets["+Inf",]) == (0, 4, 4, 5)
    assert found["gudgeon_control_answer_latency_seconds_sum"] == {(): 0.25}


def test_what_control_told_before_the_boot_is_not_told_again(tmp_path: Path) -> None:
    before = Outbox(tmp_path / "outbox.db", "dev1", "an earlier boot", FakeClock())
    before.append("metric", "control", {"health": "nominal"})
    before.close()
    assert not any(name.startswith("gudgeon_control") for name in scrape(Stage(tmp_path).reader))


def test_an_outbox_that_cannot_be_read_is_told_and_the_rest_stays(stage: Stage) -> None:
    stage.outbox.close()
    found = scrape(stage.reader)
    assert found["gudgeon_outbox_readable"] == {(): 0}
    assert "gudgeon_outbox_records" not in found
    assert found["gudgeon_link_connected"] == {(): 1}


def test_processes_of_the_supervisor(stage: Stage, tmp_path: Path) -> None:
    assert processes(tmp_path) == {}
    (tmp_path / "run").mkdir()
    state = f'{{"link": {{"pid": {os.getpid()}, "restarts": 2}}, "control": {{"pid": 4194304, "restarts": 1}}}}'
    (tmp_path / "run" / "processes.json").write_text(state)
    found = scrape(stage.reader)
    assert found["gudgeon_process_up"] == {("link",): 1, ("control",): 0}
    assert found["gudgeon_process_restarts_total"] == {("link",): 2, ("control",): 1}
    seen = look(os.getpid())
    assert seen is not None
    assert set(found["gudgeon_process_uptime_seconds"]) == {("link",)}
    assert 0 < found["gudgeon_process_uptime_seconds"]["link",] <= seen.uptime_s
    statm = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert found["gudgeon_process_resident_memory_bytes"]["link",] == pytest.approx(statm, rel=0.2)
    assert found["gudgeon_process_cpu_seconds_total"]["link",] <= sum(os.times()[:2]) + 0.02
    (tmp_path / "run" / "processes.json").write_text("[1]")
    assert processes(tmp_path) == {}


def test_no_budget_is_no_metric(stage: Stage, tmp_path: Path) -> None:
    device = DeviceConfig(DeviceSection("dev1", tmp_path), storage=replace(stage.storage, budget_bytes=0))
    assert "gudgeon_disk_budget_bytes" not in scrape(Reader(device, "boot", stage.outbox, stage.uplink, stage.clock))


def test_the_table_keeps_the_conventions() -> None:
    names = [row.name for row in TABLE]
    assert len(set(names)) == len(names)
    assert set(CONTROL) | set(LINK) <= set(names)
    for row in TABLE:
        assert re.fullmatch(r"gudgeon_[a-z_]+", row.name)
        assert row.name.endswith("_total") == (row.kind == "counter"), row.name
        assert row.help.endswith("."), row.name


def test_the_reference_page_has_the_table() -> None:
    page = DOCS.read_text(encoding="utf-8")
    section = page.partition("## The device")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `(gudgeon_\w+)` \| (\w+) \| (.*?) \| (.+?) \|$", section, re.MULTILINE)
    assert told == [(r.name, r.kind, ", ".join(f"`{label}`" for label in r.labels), r.help) for r in TABLE]
