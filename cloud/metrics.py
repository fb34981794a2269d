"""What `/metrics` of the cloud tells: three tables, and the reading of each value when a scrape comes.

INGEST    one ingest worker, from its memory: told where it runs, by `gudgeon cloud` or by `gudgeon ingest`
STORE     what is in the store, whoever put it there: told by `gudgeon cloud` alone
PROCESS   the process that answers

Devices are told as sums; which device is behind is a question to the API (`/devices`).
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, Select, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from cloud.store import tables as t
from cloud.store.database import is_postgresql
from cloud.store.pruning import TALLY
from edge_runtime import __version__, log
from edge_runtime.exposition import Found, Histogram, Labels, Page, Row, Times
from edge_runtime.processes import look

INGEST: tuple[Row, ...] = (
    Row("gudgeon_ingest_connected", "gauge", "1 while the worker is subscribed at the broker."),
    Row("gudgeon_ingest_connections_total", "counter", "Subscriptions that the broker accepted."),
    Row("gudgeon_ingest_messages_total", "counter", "Messages read."),
    Row("gudgeon_ingest_queue_messages", "gauge", "Messages that wait to be read."),
    Row("gudgeon_ingest_events_total", "counter", "Events of committed batches, repeats included."),
    Row("gudgeon_ingest_commits_total", "counter", "Transactions committed."),
    Row("gudgeon_ingest_commit_seconds", "histogram", "Time of one commit."),
    Row("gudgeon_ingest_rejected_messages_total", "counter", "Messages that could not be taken.", ("reason",)),
    Row("gudgeon_ingest_dropped_messages_total", "counter", "Messages without room in the queue; they come again."),
    Row("gudgeon_ingest_not_committed_messages_total", "counter", "Messages that the store refused; they come again."),
    Row("gudgeon_ingest_not_confirmed_messages_total", "counter", "Messages whose PUBACK did not reach the broker."),
    Row("gudgeon_broker_clients", "gauge", "Connections to the embedded broker; absent with one of your own."),
)
STORE: tuple[Row, ...] = (
    Row("gudgeon_store_readable", "gauge", "1 if the store could be read for this scrape."),
    Row("gudgeon_store_events_total", "counter", "Events stored, each once.", ("stream",)),
    Row("gudgeon_store_duplicate_events_total", "counter", "Events that came again and changed nothing.", ("stream",)),
    Row(
        "gudgeon_store_pruned_events_total", "counter", "Events that were older than the store keeps them.", ("stream",)
    ),
    Row("gudgeon_store_oldest_event_age_seconds", "gauge", "Since the oldest Event that is kept was stored."),
    Row("gudgeon_store_shed_records_total", "counter", "Records that devices have given up.", ("stream", "policy")),
    Row("gudgeon_store_rejected_messages_total", "counter", "Messages that could not be taken, by all workers."),
    Row("gudgeon_store_findings_total", "counter", "What did not fit a hash chain.", ("kind",)),
    Row("gudgeon_store_devices", "gauge", "Devices that ever sent something."),
    Row("gudgeon_store_devices_online", "gauge", "Devices that are connected."),
    Row("gudgeon_store_waiting_records", "gauge", "Records that wait on the devices, as these told last."),
    Row("gudgeon_store_bytes", "gauge", "Size of the database."),
)
PROCESS: tuple[Row, ...] = (
    Row("gudgeon_cloud_info", "gauge", "Always 1; who answers.", ("process", "version")),
    Row("gudgeon_process_uptime_seconds", "gauge", "Since the process was started.", ("process",)),
    Row("gudgeon_process_resident_memory_bytes", "gauge", "Resident memory.", ("process",)),
    Row("gudgeon_process_cpu_seconds_total", "counter", "Processor time, user and system.", ("process",)),
)
COUNTS: dict[str, str] = {
    "gudgeon_ingest_connections_total": "connections",
    "gudgeon_ingest_messages_total": "messages",
    "gudgeon_ingest_events_total": "events",
    "gudgeon_ingest_commits_total": "commits",
    "gudgeon_ingest_dropped_messages_total": "dropped",
    "gudgeon_ingest_not_committed_messages_total": "not_committed",
    "gudgeon_ingest_not_confirmed_messages_total": "not_confirmed",
}

Read = Callable[[], Found]


class Worker(Protocol):
    """What is read of an Ingest."""

    @property
    def counts(self) -> Mapping[str, int]: ...
    @property
    def rejections(self) -> Mapping[str, int]: ...
    @property
    def commit_times(self) -> Times: ...
    @property
    def waiting(self) -> int: ...
    @property
    def is_connected(self) -> bool: ...


def of_ingest(worker: Worker) -> Found:
    found: dict[str, dict[Labels, float | Histogram]] = {n: {(): worker.counts.get(c, 0)} for n, c in COUNTS.items()}
    found["gudgeon_ingest_connected"] = {(): worker.is_connected}
    found["gudgeon_ingest_queue_messages"] = {(): worker.waiting}
    found["gudgeon_ingest_commit_seconds"] = {(): worker.commit_times.told()}
    found["gudgeon_ingest_rejected_messages_total"] = {(kind,): n for kind, n in worker.rejections.items()}
    return found


def of_broker(clients: int) -> Found:
    return {"gudgeon_broker_clients": {(): clients}}


def of_process(name: str) -> Found:
    found: dict[str, dict[Labels, float | Histogram]] = {"gudgeon_cloud_info": {(name, __version__): 1}}
    if seen := look(os.getpid()):
        found["gudgeon_process_uptime_seconds"] = {(name,): seen.uptime_s}
        found["gudgeon_process_resident_memory_bytes"] = {(name,): seen.resident_bytes}
        found["gudgeon_process_cpu_seconds_total"] = {(name,): seen.cpu_s}
    return found


def of_store(engine: Engine) -> Found:
    """Where the store cannot be read, nothing but that."""
    try:
        with engine.connect() as connection:
            return {**_sums(connection), "gudgeon_store_readable": {(): 1}}
    except (SQLAlchemyError, OSError) as error:
        log.say(logging.WARNING, "the store could not be read for /metrics", reason=str(error))
        return {"gudgeon_store_readable": {(): 0}}


def _sums(connection: Connection) -> Found:
    """Over small tables; the Events themselves are not counted."""
    s, h, d = t.span.c, t.stream_head.c, t.device.c
    delivered = select(s.stream, func.sum(s.last - s.first + 1)).group_by(s.stream)
    repeats = select(h.stream, func.sum(h.duplicates)).group_by(h.stream)
    shed = select(t.shed.c.stream, t.shed.c.policy, func.sum(t.shed.c.count)).group_by(t.shed.c.stream, t.shed.c.policy)
    findings = select(t.finding.c.kind, func.count()).group_by(t.finding.c.kind)
    rejected = select(func.coalesce(func.sum(t.tally.c.value), 0)).where(t.tally.c.name == "rejections")
    return {
        "gudgeon_store_events_total": _labelled(connection, delivered),
        "gudgeon_store_duplicate_events_total": _labelled(connection, repeats),
        "gudgeon_store_pruned_events_total": _pruned(connection),
        "gudgeon_store_oldest_event_age_seconds": _oldest(connection),
        "gudgeon_store_shed_records_total": _labelled(connection, shed),
        "gudgeon_store_findings_total": _labelled(connection, findings),
        "gudgeon_store_rejected_messages_total": _labelled(connection, rejected),
        "gudgeon_store_devices": _labelled(connection, select(func.count(d.device))),
        "gudgeon_store_devices_online": _labelled(connection, select(func.count(d.device)).where(d.online)),
        "gudgeon_store_waiting_records": _waiting(connection),
        "gudgeon_store_bytes": _size(connection),
    }


def _labelled(connection: Connection, query: Select[Any]) -> dict[Labels, float | Histogram]:
    """The last column is the value."""
    return {tuple(labels): float(value) for *labels, value in connection.execute(query)}


def _waiting(connection: Connection) -> dict[Labels, float | Histogram]:
    """Nothing where no device tells it."""
    now = t.latest.c
    query = select(now.body).where(now.stream == "metric", now.kind == "control")
    told = [json.loads(body).get("outbox_depth") for body in connection.execute(query).scalars()]
    depths = [depth for depth in told if isinstance(depth, int)]
    return {(): sum(depths)} if depths else {}


def _pruned(connection: Connection) -> dict[Labels, float | Histogram]:
    c = t.tally.c
    query = select(c.name, c.value).where(c.device == "", c.name.startswith(TALLY))
    return {(name.removeprefix(TALLY),): value for name, value in connection.execute(query)}


def _oldest(connection: Connection) -> dict[Labels, float | Histogram]:
    """Nothing where there is no Event."""
    first = select(t.event.c.received_ns).order_by(t.event.c.id).limit(1)
    stored_ns = connection.execute(first).scalar()
    return {} if stored_ns is None else {(): max(0.0, (time.time_ns() - stored_ns) / 1e9)}


def _size(connection: Connection) -> dict[Labels, float | Histogram]:
    if is_postgresql(connection):
        return {(): connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()}
    file = Path(str(connection.engine.url.database))
    return {(): sum(p.stat().st_size for p in (file, file.with_name(f"{file.name}-wal")) if p.exists())}


def page(process: str, *reads: Read) -> Page:
    """`reads`: what is told beside the process itself."""

    def read() -> Found:
        found = dict(of_process(process))
        for one in reads:
            found.update(one())
        return found

    return Page((*PROCESS, *INGEST, *STORE), read)
