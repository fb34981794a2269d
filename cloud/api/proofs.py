"""The delivery proof of a device, as text: see `cloud.proof`."""

from __future__ import annotations

import time
from collections.abc import Iterator

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import StreamingResponse

from cloud.api.asked import From, To, period_of
from cloud.proof.statement import proof_lines
from edge_runtime.errors import UsageError
from edge_runtime.identity import load_or_make

router = APIRouter()


@router.get("/devices/{device}/proof", response_class=StreamingResponse)
def proof(
    request: Request,
    device: str,
    start: From = None,
    end: To = None,
    records: bool = False,
) -> StreamingResponse:
    """The signed statement, its signature, and with `records` every record line."""
    engine = request.app.state.engine
    period = period_of(start, end)
    try:
        key = load_or_make(request.app.state.settings.store.key_file)
        lines = proof_lines(engine, key, device, period, time.time_ns(), records)
        first = next(lines)
    except UsageError as error:
        raise HTTPException(404, str(error)) from error

    def text() -> Iterator[str]:
        yield first + "\n"
        for line in lines:
            yield line + "\n"

    return StreamingResponse(text(), media_type="application/x-ndjson")
