"""`/metrics` for Prometheus: outside the versioned API, on the same address."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

router = APIRouter()


@router.get("/metrics", include_in_schema=False)
def metrics(request: Request) -> Response:
    body, content_type = request.app.state.metrics.answer(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})
