"""What is true now: health, the summary, and the stream of server-sent events that the page listens to.

The stream sends `summary` once a second and `reject` for each diverted part; it begins with the last ones. It ends as soon as
the server is asked to stop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from cloud.access.needs import Stays, needs
from cloud.access.roles import Role
from cloud.api import models
from cloud.api.records import named
from cloud.store import queries
from edge_runtime import __version__

router = APIRouter()

PERIOD_S = 1.0
REJECTS_SHOWN = 12


@router.get("/health", response_model=models.Health)
def health(request: Request) -> Any:
    """`degraded`: the page works, but nothing can arrive, because there is no broker."""
    connected = _connected(request.app.state)
    status = "degraded" if connected is False else "ok"
    return {"status": status, "broker_connected": connected, "version": __version__}


@router.get("/summary", response_model=models.Summary, dependencies=[needs(Role.VIEWER)])
async def summary(request: Request) -> Any:
    return await request.app.state.summaries.get()


@router.get(
    "/stream",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
    dependencies=[needs(Role.VIEWER)],
)
async def stream(request: Request) -> StreamingResponse:
    """Server-sent events: `summary` (as /summary, and broker_connected) and `reject` (as an item of /decisions)."""
    return StreamingResponse(_messages(request), media_type="text/event-stream")


async def _messages(request: Request) -> AsyncIterator[str]:
    state = request.app.state
    stopping: asyncio.Event = state.stopping
    last_id = 0
    yield "retry: 1000\n\n"
    may = Stays(request, Role.VIEWER)
    while not stopping.is_set() and await may():
        found, last_id = await run_in_threadpool(queries.diverted_after, state.engine, last_id, REJECTS_SHOWN)
        for row in found:
            yield sse("reject", named(row))
        yield sse("summary", await state.summaries.get() | {"broker_connected": _connected(state)})
        try:
            await asyncio.wait_for(stopping.wait(), PERIOD_S)
        except TimeoutError:
            pass


def _connected(state: Any) -> bool | None:
    """None where ingest runs elsewhere."""
    return state.broker_connected() if state.broker_connected else None


def sse(event: str, data: Any) -> str:
    return f"event: {event}\ndata: {json.dumps(data, allow_nan=False)}\n\n"
