"""One number over time, down-sampled."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from cloud.api import models
from cloud.api.asked import From, To, known_stream, period_of, refused
from cloud.store.series import SECOND_NS, Asked, series
from edge_runtime.errors import UsageError

router = APIRouter()

SPAN_NS = 3600 * SECOND_NS
STEPS = 120


@router.get("/series", response_model=models.Series)
def ask(
    request: Request,
    device: Annotated[str, Query(max_length=64)],
    stream: Annotated[str, Query(max_length=64)],
    field: Annotated[str, Query(max_length=600, description="such as body.latency_us")],
    kind: Annotated[str | None, Query(max_length=200)] = None,
    start: From = None,
    end: To = None,
    step_s: Annotated[float | None, Query(gt=0, le=1e9, allow_inf_nan=False)] = None,
) -> Any:
    """Without `to` until now, without `from` the hour before, without `step_s` in 120 buckets."""
    known_stream(stream)
    period = period_of(start, end)
    end_ns = time.time_ns() if period.end_ns is None else period.end_ns
    start_ns = end_ns - SPAN_NS if period.start_ns is None else period.start_ns
    step_ns = max(1, -(-(end_ns - start_ns) // STEPS) if step_s is None else round(step_s * SECOND_NS))
    asked = Asked(device, stream, kind, field, start_ns, end_ns, step_ns)
    try:
        found = series(request.app.state.engine, asked)
    except UsageError as error:
        raise refused(error) from error
    told = {"device": device, "stream": stream, "kind": kind, "field": field}
    return told | {"from_ns": start_ns, "to_ns": end_ns, "step_s": step_ns / SECOND_NS, "buckets": found}
