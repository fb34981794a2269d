"""Each metric says what is in the store and in the worker; the reference page has the same tables."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, create_engine

from cloud.app import make_app
from cloud.messages import REJECTION_KINDS, Item, Rejection, Status, read_message
from cloud.metrics import COUNTS, INGEST, PROCESS, STORE, of_ingest, of_store, page
from cloud.settings import METRICS_PORTS, CloudSettings, IngestSection
from cloud.tests.databases import commit
from cloud.tests.made import PLACE, batch, chained, decision, event
from edge_runtime import __version__
from edge_runtime.exposition import Page, Row, Times
from edge_runtime.wire.batch import Shed

DOCS = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
Samples = dict[str, dict[tuple[str, ...], float]]


class FakeWorker:
    is_connected = True
    waiting = 7

    def __init__(self) -> None:
        self.counts = Counter(messages=20, events=300, commits=3, connections=1)
        self.rejections = Counter(not_json=2)
        self.commit_times = Times((0.01, 0.1))
        for seconds in (0.002, 0.01, 3.0):
            self.commit_times.add(seconds)


def samples(text: str) -> Samples:
    """Sample name → label values, in the order of the names of the labels → value."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for s in family.samples:
            found.setdefault(s.name, {})[tuple(s.labels.values())] = s.value
    return found


def scrape(made: Page) -> Samples:
    return samples(made.answer("")[0].decode())


def test_the_store(engine: Engine) -> None:
    events = chained([*(decision(n) for n in range(1, 8)), event(1, "alarm", "hot")])
    metric = event(1, "metric", "control", outbox_depth=4)
    other = replace(PLACE, device="dev2")
    items: list[Item] = [batch([*events, metric]), Status(other, False, "b2"), Rejection("t", "odd", 3)]
    commit(engine, items, time.time_ns())
    commit(engine, [batch([e for e in events if e.stream == "decision"][:3])], time.time_ns())
    found = scrape(page("cloud", lambda: of_store(engine)))
    assert found["gudgeon_store_events_total"] == {("decision",): 7, ("alarm",): 1, ("metric",): 1}
    assert found["gudgeon_store_duplicate_events_total"]["decision",] == 3
    assert found["gudgeon_store_devices"] == {(): 2}
    assert found["gudgeon_store_devices_online"] == {(): 1}
    assert found["gudgeon_store_waiting_records"] == {(): 4}
    assert found["gudgeon_store_rejected_messages_total"] == {(): 1}
    assert found["gudgeon_store_bytes"][()] > 10_000
    assert found["gudgeon_store_readable"] == {(): 1}
    assert found["gudgeon_cloud_info"] == {("cloud", __version__): 1}
    assert found["gudgeon_process_resident_memory_bytes"]["cloud",] > 1_000_000


def test_what_devices_gave_up_and_what_did_not_fit(engine: Engine) -> None:
    hashes = ("a" * 64, "b" * 64, "c" * 64)
    shed = [Shed(1, "telemetry", 1, 10, 0, 10, "evict_oldest", *hashes, 1, 2)]
    torn = event(12, "telemetry", "t")
    commit(engine, [batch([event(11, "telemetry", "t"), torn], shed=shed)], time.time_ns())
    found = scrape(page("cloud", lambda: of_store(engine)))
    assert found["gudgeon_store_shed_records_total"] == {("evict_oldest", "telemetry"): 10}
    assert sum(found["gudgeon_store_findings_total"].values()) >= 1


def test_an_empty_store_tells_no_waiting_records(engine: Engine) -> None:
    found = scrape(page("cloud", lambda: of_store(engine)))
    assert "gudgeon_store_waiting_records" not in found
    assert "gudgeon_store_events_total" not in found
    assert found["gudgeon_store_devices"] == {(): 0}


def test_a_store_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    gone = create_engine(f"sqlite:///{tmp_path / 'none' / 'cloud.db'}")
    assert scrape(page("cloud", lambda: of_store(gone)))["gudgeon_store_readable"] == {(): 0}


def test_a_worker() -> None:
    found = scrape(page("ingest", lambda: of_ingest(FakeWorker())))
    assert found["gudgeon_ingest_messages_total"] == {(): 20}
    assert found["gudgeon_ingest_queue_messages"] == {(): 7}
    assert found["gudgeon_ingest_rejected_messages_total"] == {("not_json",): 2}
    assert found["gudgeon_ingest_not_committed_messages_total"] == {(): 0}
    assert found["gudgeon_ingest_commit_seconds_bucket"] == {("0.01",): 2, ("0.1",): 2, ("+Inf",): 3}
    assert found["gudgeon_ingest_commit_seconds_sum"] == {(): pytest.approx(3.012)}


def test_over_http(engine: Engine) -> None:
    app = make_app(engine, CloudSettings(), lambda: True, told=[lambda: of_ingest(FakeWorker())])

    async def ask(host: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return await client.get("/metrics")

    answer = asyncio.run(ask("127.0.0.1"))
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert samples(answer.text)["gudgeon_ingest_events_total"] == {(): 300}
    assert samples(answer.text)["gudgeon_store_readable"] == {(): 1}
    assert asyncio.run(ask("evil.example")).status_code == 421


@pytest.mark.parametrize(
    ("payload", "kind"),
    [(b"rubbish", "batch"), (b"{}", "batch"), (b"{\n\n", "not_json"), (b"\x28\xb5\x2f\xfd__", "compression")],
)
def test_the_class_of_a_rejection(payload: bytes, kind: str) -> None:
    found = read_message(PLACE.topic("events"), payload)
    assert isinstance(found, Rejection)
    assert found.kind == kind, found.reason
    assert read_message("v1/x", b"").kind == "topic"  # type: ignore[union-attr]


@pytest.mark.parametrize("port", [-1, 65536 - METRICS_PORTS + 1])
def test_a_port_that_cannot_be(port: int) -> None:
    with pytest.raises(ValueError, match="port is"):
        IngestSection(metrics_port=port)


def test_the_tables_keep_the_conventions() -> None:
    rows = (*PROCESS, *INGEST, *STORE)
    assert len({row.name for row in rows}) == len(rows)
    assert set(COUNTS) <= {row.name for row in INGEST}
    for row in rows:
        assert row.name.endswith("_total") == (row.kind == "counter"), row.name


@pytest.mark.parametrize(("title", "table"), [("The process", PROCESS), ("Ingest", INGEST), ("The store", STORE)])
def test_the_reference_page_has_the_tables(title: str, table: tuple[Row, ...]) -> None:
    section = DOCS.partition("## The cloud")[2].partition(f"### {title}\n")[2].partition("\n#")[0]
    told = re.findall(r"^\| `(gudgeon_\w+)` \| (\w+) \| (.*?) \| (.+?) \|$", section, re.MULTILINE)
    assert told == [(r.name, r.kind, ", ".join(f"`{label}`" for label in r.labels), r.help) for r in table]
    if table is INGEST:
        assert {kind for _, kind in REJECTION_KINDS} <= set(re.findall(r"`(\w+)`", section))
