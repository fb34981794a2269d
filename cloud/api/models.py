"""What the API answers. Times end in `_ns` (Unix time in nanoseconds); scores are 0–1."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class Health(BaseModel):
    """`broker_connected`: null where ingest runs in processes of its own."""

    status: Literal["ok", "degraded"]
    broker_connected: bool | None
    version: str


class DeviceState(BaseModel):
    device: str
    place: str
    online: bool
    last_seen_ns: int
    health: Any = None
    line_state: Any = None
    line_state_name: Any = None
    parts_per_min: Any = None
    outbox_depth: Any = None
    engine: Any = None
    variant: Any = None
    bundle_digest: Any = None


class Device(DeviceState):
    """`committed`: what ingest has acknowledged, highest seq of each stream without a gap below it."""

    boot_id: str
    first_seen_ns: int
    committed: dict[str, int]


class Event(BaseModel):
    """`time_ns`: when it happened as far as the cloud can tell, by `time_source` (`device`, `boot`, `contact`, `unknown`);
    `wall_ns`: what the device's clock said."""

    id: int
    device: str
    chain: str
    stream: str
    seq: int
    boot_id: str
    kind: str
    mono_ns: int
    wall_ns: int
    wall_uncertainty_ns: int | None
    received_ns: int
    time_ns: int
    time_source: str
    body: dict[str, Any]


class Decision(BaseModel):
    """`kind`: decision, or unrecorded for a part whose record a crash cut off."""

    id: int
    device: str
    seq: int
    kind: str
    part_epoch: int | None
    part_seq: int | None
    result: int | None
    result_name: str | None
    score: float | None
    label: str | None
    reason: str | None
    serial: int | None
    lot: int | None
    recipe: int | None
    latency_us: int | None
    bundle_digest: str | None
    engine: str | None
    variant: str | None
    wall_ns: int
    received_ns: int
    time_ns: int
    time_source: str


class Rejection(BaseModel):
    id: int
    wall_ns: int
    topic: str
    reason: str
    size_bytes: int


class EventPage(BaseModel):
    """`next_after`: pass it as `after` for the next page; null when this page is the last."""

    items: list[Event]
    next_after: int | None


class DecisionPage(BaseModel):
    items: list[Decision]
    next_after: int | None


class RejectionPage(BaseModel):
    items: list[Rejection]
    next_after: int | None


class SeriesBucket(BaseModel):
    """Values from `from_ns` on, up to the next bucket; where there was none, `count` is 0 and the others are null."""

    from_ns: int
    count: int
    min: float | None
    max: float | None
    mean: float | None
    first: float | None
    last: float | None


class Series(BaseModel):
    device: str
    stream: str
    kind: str | None
    field: str
    from_ns: int
    to_ns: int
    step_s: float
    buckets: list[SeriesBucket]


class Bucket(BaseModel):
    """Decisions whose latency was at most `upto_ms` and above the bucket before; null: no upper edge."""

    upto_ms: float | None
    count: int


class Summary(BaseModel):
    parts: int
    results: dict[str, int]
    events_in_cloud: int
    unrecorded: int
    duplicates_in_cloud: int
    rejected_messages: int
    latency_ms: list[Bucket]
    parts_per_min: float
    line_state: Any
    line_state_name: Any
    outbox_depth: int | None
    devices_online: int
    devices: list[DeviceState]
    simulator: dict[str, Any] | None
