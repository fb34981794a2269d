"""What `/metrics` of a device tells: one table, and the reading of each value when a scrape comes.

The outbox is read through `link`'s own connection, in short read transactions; the rest are files of the kernel and of the
supervisor. What `control` tells is what its newest metric Event told: it is asked nothing. Where the outbox cannot be read,
what would come from it is left out and `gudgeon_outbox_readable` is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from edge_runtime import __version__
from edge_runtime.clock import Clock
from edge_runtime.config import DeviceConfig
from edge_runtime.decide.decision import Health, Result
from edge_runtime.errors import ResourceError
from edge_runtime.exposition import Found, Histogram, Labels, Row
from edge_runtime.outbox.budget import du_bytes
from edge_runtime.outbox.reading import Backlog
from edge_runtime.outbox.trouble import DamagedError
from edge_runtime.processes import Process, processes
from edge_runtime.wire import latency
from edge_runtime.wire.envelope import STREAMS, Event

STREAM: Labels = ("stream",)
PROCESS: Labels = ("process",)

TABLE: tuple[Row, ...] = (
    Row("gudgeon_device_info", "gauge", "Always 1; who this is.", ("device", "chain", "version")),
    Row("gudgeon_outbox_readable", "gauge", "1 if the outbox could be read for this scrape."),
    Row("gudgeon_outbox_records", "gauge", "Records that wait for the cloud.", STREAM),
    Row("gudgeon_outbox_bytes", "gauge", "Bytes of the records that wait for the cloud.", STREAM),
    Row(
        "gudgeon_outbox_oldest_age_seconds", "gauge", "Running time since the oldest waiting record was stored.", STREAM
    ),
    Row("gudgeon_outbox_appended_records_total", "counter", "Records stored in the life of this outbox.", STREAM),
    Row(
        "gudgeon_outbox_shed_records_total",
        "counter",
        "Records given up to the disk budget or to age, in the life of this outbox.",
        ("stream", "policy"),
    ),
    Row("gudgeon_outbox_wal_bytes", "gauge", "Size of the outbox's write-ahead log."),
    Row("gudgeon_disk_used_bytes", "gauge", "What the state folder takes on the disk, as du counts it."),
    Row("gudgeon_disk_budget_bytes", "gauge", "What the state folder may take; absent where there is no limit."),
    Row("gudgeon_link_connected", "gauge", "1 while the broker has accepted the connection."),
    Row("gudgeon_link_connections_total", "counter", "Connections that the broker accepted."),
    Row("gudgeon_link_connection_failures_total", "counter", "Connections that ended or did not come about."),
    Row("gudgeon_link_retry_seconds", "gauge", "Time until the next try to connect; 0 while connected."),
    Row("gudgeon_link_sent_batches_total", "counter", "Batches sent, those that were sent again included."),
    Row("gudgeon_link_sent_records_total", "counter", "Records sent, those that were sent again included."),
    Row("gudgeon_link_sent_bytes_total", "counter", "Bytes of the batches sent, compressed."),
    Row(
        "gudgeon_link_acknowledged_records_total", "counter", "Records that the cloud confirmed and the outbox deleted."
    ),
    Row("gudgeon_link_refused_batches_total", "counter", "Batches that the broker turned away; they are kept."),
    Row("gudgeon_clock_offset_seconds", "gauge", "What the wall clock lacks to the cloud's; absent until known."),
    Row("gudgeon_clock_offset_uncertainty_seconds", "gauge", "How far that may be wrong."),
    Row(
        "gudgeon_clock_uncertainty_seconds", "gauge", "Bound that the kernel gives; absent while the clock is not set."
    ),
    Row("gudgeon_process_up", "gauge", "1 while the process runs.", PROCESS),
    Row("gudgeon_process_restarts_total", "counter", "Restarts by the supervisor.", PROCESS),
    Row("gudgeon_process_uptime_seconds", "gauge", "Since the process was started.", PROCESS),
    Row("gudgeon_process_resident_memory_bytes", "gauge", "Resident memory.", PROCESS),
    Row("gudgeon_process_cpu_seconds_total", "counter", "Processor time, user and system.", PROCESS),
    Row("gudgeon_control_told_age_seconds", "gauge", "Age of the metric Event that the values of control come from."),
    Row("gudgeon_control_health", "gauge", "1 for the state that holds.", ("state",)),
    Row("gudgeon_control_answers_total", "counter", "Answers to the PLC.", ("result",)),
    Row("gudgeon_control_missed_triggers_total", "counter", "Parts that passed without being seen."),
    Row("gudgeon_control_vetoes_total", "counter", "Answers that the Guard changed or withheld."),
    Row("gudgeon_control_plc_losses_total", "counter", "How often the PLC went away."),
    Row("gudgeon_control_waiting_records", "gauge", "Records in memory because the disk refuses them."),
    Row("gudgeon_control_lost_records_total", "counter", "Records for which there was no room in memory either."),
    Row("gudgeon_control_answer_latency_seconds", "histogram", "Trigger seen to answer recorded."),
)

#: metric → the field of control's metric Event; a counter that was never counted is 0
CONTROL: dict[str, str] = {
    "gudgeon_control_missed_triggers_total": "missed",
    "gudgeon_control_vetoes_total": "veto",
    "gudgeon_control_plc_losses_total": "plc_lost",
    "gudgeon_control_waiting_records": "records_waiting",
    "gudgeon_control_lost_records_total": "records_lost",
}
#: metric → the uplink's count
LINK: dict[str, str] = {
    "gudgeon_link_connections_total": "connections",
    "gudgeon_link_connection_failures_total": "failures",
    "gudgeon_link_sent_batches_total": "batches",
    "gudgeon_link_sent_records_total": "records",
    "gudgeon_link_sent_bytes_total": "bytes",
    "gudgeon_link_acknowledged_records_total": "acknowledged",
    "gudgeon_link_refused_batches_total": "refusals",
}


class Queue(Protocol):
    """What is read of the outbox."""

    @property
    def chain(self) -> str: ...
    def backlog(self) -> Mapping[str, Backlog]: ...
    def head(self, stream: str) -> int: ...
    def shed_totals(self) -> Mapping[tuple[str, str], int]: ...
    def last(self, stream: str) -> Event | None: ...


class Line(Protocol):
    """What is read of the uplink."""

    @property
    def connected(self) -> bool: ...
    @property
    def retry_s(self) -> float: ...
    @property
    def counts(self) -> Mapping[str, int]: ...


def alone(value: float) -> dict[Labels, float]:
    return {(): value}


def of_outbox(outbox: Queue, device: str) -> Found:
    backlog, none = outbox.backlog(), Backlog(0, 0, 0)
    shed: dict[Labels, float | Histogram] = {
        (stream, policy): count for (stream, policy), count in outbox.shed_totals().items()
    }
    return {
        "gudgeon_device_info": {(device, outbox.chain, __version__): 1},
        "gudgeon_outbox_records": {(s,): backlog.get(s, none).records for s in STREAMS},
        "gudgeon_outbox_bytes": {(s,): backlog.get(s, none).size_bytes for s in STREAMS},
        "gudgeon_outbox_oldest_age_seconds": {(s,): waits.oldest_age_s for s, waits in backlog.items()},
        "gudgeon_outbox_appended_records_total": {(s,): outbox.head(s) for s in STREAMS},
        "gudgeon_outbox_shed_records_total": shed,
    }


def of_uplink(uplink: Line) -> Found:
    found = {name: alone(uplink.counts.get(count, 0)) for name, count in LINK.items()}
    found["gudgeon_link_connected"] = alone(uplink.connected)
    found["gudgeon_link_retry_seconds"] = alone(uplink.retry_s)
    return found


def of_disk(state_dir: Path, budget_bytes: int) -> Found:
    found = {"gudgeon_disk_used_bytes": alone(du_bytes(state_dir))}
    if budget_bytes:
        found["gudgeon_disk_budget_bytes"] = alone(budget_bytes)
    try:
        found["gudgeon_outbox_wal_bytes"] = alone((state_dir / "outbox.db-wal").stat().st_size)
    except OSError:
        pass  # not there yet, or not to be read: not told
    return found


def of_processes(running: Mapping[str, Process]) -> Found:
    seen = {(name,): p.seen for name, p in running.items() if p.seen}
    return {
        "gudgeon_process_up": {(name,): float(p.seen is not None) for name, p in running.items()},
        "gudgeon_process_restarts_total": {(name,): p.restarts for name, p in running.items()},
        "gudgeon_process_uptime_seconds": {name: s.uptime_s for name, s in seen.items()},
        "gudgeon_process_resident_memory_bytes": {name: s.resident_bytes for name, s in seen.items()},
        "gudgeon_process_cpu_seconds_total": {name: s.cpu_s for name, s in seen.items()},
    }


def of_control(told: Event | None, boot_id: str, now_ns: int) -> Found:
    """Nothing where `control` told nothing in this boot; what it does not tell is left out."""
    if told is None or told.kind != "control" or told.boot_id != boot_id:
        return {}
    body: Mapping[str, Any] = told.body
    found: dict[str, dict[Labels, float | Histogram]] = {name: {(): body.get(key, 0)} for name, key in CONTROL.items()}
    found["gudgeon_control_told_age_seconds"] = {(): max(0, now_ns - told.mono_ns) / 1e9}
    health = body.get("health")
    found["gudgeon_control_health"] = {(h.name.lower(),): float(h.name.lower() == health) for h in Health}
    found["gudgeon_control_answers_total"] = {(r.name.lower(),): body.get(r.name.lower(), 0) for r in Result}
    counts = body.get("latency_counts")
    if isinstance(counts, list) and len(counts) == latency.BUCKETS:
        edges = [edge / 1000 for edge in latency.EDGES_MS]
        total_s = body.get("latency_sum_us", 0) / 1e6
        found["gudgeon_control_answer_latency_seconds"] = {(): Histogram(edges, counts, total_s)}
    return found


class Offset(NamedTuple):
    """What would have to be added to the wall clock to make it the cloud's."""

    offset_ns: int
    uncertainty_ns: int


def of_clock(clock: Clock, offset: Offset | None) -> Found:
    told = {"gudgeon_clock_uncertainty_seconds": clock.wall_uncertainty_ns()}
    if offset is not None:
        told["gudgeon_clock_offset_seconds"] = offset.offset_ns
        told["gudgeon_clock_offset_uncertainty_seconds"] = offset.uncertainty_ns
    return {name: alone(value_ns / 1e9) for name, value_ns in told.items() if value_ns is not None}


class Reader:
    """Called by a scrape. `clock_offset` gives None while that is not known."""

    def __init__(
        self,
        device: DeviceConfig,
        boot_id: str,
        outbox: Queue,
        uplink: Line,
        clock: Clock,
        clock_offset: Callable[[], Offset | None] = lambda: None,
    ) -> None:
        self._device, self._boot_id, self._clock = device, boot_id, clock
        self._outbox, self._uplink, self._clock_offset = outbox, uplink, clock_offset

    def __call__(self) -> Found:
        state_dir = self._device.device.state_dir
        return {
            **self._stored(),
            **of_uplink(self._uplink),
            **of_disk(state_dir, self._device.storage.budget_bytes),
            **of_clock(self._clock, self._clock_offset()),
            **of_processes(processes(state_dir)),
        }

    def _stored(self) -> Found:
        try:
            told = of_control(self._outbox.last("metric"), self._boot_id, self._clock.monotonic_ns())
            return {**of_outbox(self._outbox, self._device.device.id), **told, "gudgeon_outbox_readable": alone(1)}
        except (ResourceError, DamagedError):
            return {"gudgeon_outbox_readable": alone(0)}
