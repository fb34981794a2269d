"""The delivery proof of a device, as text: see `cloud.proof`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import StreamingResponse

from cloud.proof.cli import parse_time
from cloud.proof.statement import Period, proof_lines
from edge_runtime.errors import UsageError
from edge_runtime.identity import load_or_make

router = APIRouter()


@router.get("/devices/{device}/proof", response_class=StreamingResponse)
def proof(
    request: Request,
    device: str,
    start: Annotated[str | None, Query(alias="from", max_length=40)] = None,
    end: Annotated[str | None, Query(alias="to", max_length=40)] = None,
    records: bool = False,
) -> StreamingResponse:
    """The signed statement, its signature, and with `records` every record line."""
    engine = request.app.state.engine
    try:
        period = Period(*(None if text is None else parse_time(text) for text in (start, end)))
        key = load_or_make(request.app.state.settings.store.key_file)
        lines = proof_lines(engine, key, device, period, time.time_ns(), records)
        first = next(lines)
    except UsageError as error:
        raise HTTPException(404 if "is no time" not in str(error) else 422, str(error)) from error

    def text() -> Iterator[str]:
        yield first + "\n"
        for line in lines:
            yield line + "\n"

    return StreamingResponse(text(), media_type="application/x-ndjson")
