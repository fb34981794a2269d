"""What the live page shows, from counters and the newest Events. The pure part makes the summary from what was read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from cloud.packml import RESULTS, STATES
from cloud.simulator import Simulator
from cloud.store import queries
from edge_runtime.wire import latency

FRESH_S = 0.5

Json = dict[str, Any]


def histogram(tallies: Mapping[str, int]) -> list[Json]:
    """Buckets in order; `upto_ms` is None in the last."""
    edges: list[int | None] = [*latency.EDGES_MS, None]
    return [{"upto_ms": edge, "count": tallies.get(f"latency:{i}", 0)} for i, edge in enumerate(edges)]


def device_state(row: Mapping[str, Any]) -> Json:
    """One device as the page shows it; what a device does not tell is None."""
    latest = row["latest"]
    metric: Json = latest.get("metric/control", {}).get("body", {})
    loaded: Json = latest.get("health/model_loaded", {}).get("body", {})
    line_state = metric.get("line_state")
    name = metric.get("line_state_name")
    if name is None and isinstance(line_state, int):
        name = STATES.get(line_state)
    return {
        "device": row["device"],
        "place": row["place"],
        "online": row["online"],
        "last_seen_ns": row["last_seen_ns"],
        "health": _health(latest),
        "line_state": line_state,
        "line_state_name": name,
        "parts_per_min": metric.get("parts_per_min"),
        "outbox_depth": metric.get("outbox_depth"),
        "engine": loaded.get("engine"),
        "variant": loaded.get("variant"),
        "bundle_digest": loaded.get("bundle_digest"),
    }


def _health(latest: Mapping[str, Any]) -> Any:
    """The newer of the last health Event and the last metric."""
    told = [
        latest[key] for key in ("metric/control", "health/health") if "health" in latest.get(key, {}).get("body", {})
    ]
    return max(told, key=lambda e: e["wall_ns"])["body"]["health"] if told else None


def summarise(
    tallies: Mapping[str, int], devices: Sequence[Mapping[str, Any]], parts_per_min: float, simulator: Json | None
) -> Json:
    states = [device_state(row) for row in devices]
    newest = max(states, key=lambda s: (s["online"], s["last_seen_ns"]), default={})
    told = [s["outbox_depth"] for s in states if isinstance(s["outbox_depth"], int)]
    return {
        "parts": tallies.get("parts", 0),
        "results": {name: tallies.get(f"result:{code}", 0) for code, name in RESULTS.items()},
        "events_in_cloud": tallies.get("kind:decision", 0),
        "unrecorded": tallies.get("kind:unrecorded", 0),
        "duplicates_in_cloud": tallies.get("duplicates", 0),
        "rejected_messages": tallies.get("rejections", 0),
        "latency_ms": histogram(tallies),
        "parts_per_min": parts_per_min,
        "line_state": newest.get("line_state"),
        "line_state_name": newest.get("line_state_name"),
        "outbox_depth": sum(told) if told else None,
        "devices_online": sum(bool(s["online"]) for s in states),
        "devices": states,
        "simulator": simulator,
    }


class Summaries:
    """However many pages look on, the store is asked at most twice a second."""

    def __init__(self, engine: Engine, simulator: Simulator) -> None:
        self._engine, self._simulator = engine, simulator
        self._lock = asyncio.Lock()
        self._made_s = -FRESH_S
        self._summary: Json = {}

    async def get(self) -> Json:
        async with self._lock:
            if time.monotonic() - self._made_s >= FRESH_S:
                tallies, devices, rate = await run_in_threadpool(self._read)
                self._summary = summarise(tallies, devices, rate, await self._simulator.stats())
                self._made_s = time.monotonic()
            return self._summary

    def _read(self) -> tuple[dict[str, int], list[Json], float]:
        now_ns = time.time_ns()
        engine = self._engine
        return queries.tallies(engine), queries.devices(engine), queries.parts_per_min(engine, now_ns)
