"""Events as a Parquet file, made while it is sent. The end of a file that broke off is missing, so that no reader takes it."""

from __future__ import annotations

import threading
import weakref
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from starlette.responses import StreamingResponse

from cloud.api.asked import From, To, known_stream, period_of
from edge_runtime.errors import UsageError

router = APIRouter()

AT_ONCE = 2
MEDIA_TYPE = "application/vnd.apache.parquet"


@router.get("/export.parquet", response_class=StreamingResponse, responses={200: {"content": {MEDIA_TYPE: {}}}})
def export(
    request: Request,
    device: Annotated[str | None, Query(max_length=64)] = None,
    stream: Annotated[str | None, Query(max_length=64)] = None,
    start: From = None,
    end: To = None,
) -> StreamingResponse:
    """Without `device` of all devices, without `stream` of all streams. At most two at once; 429 beyond."""
    from cloud.export.parquet import Wanted, parquet_bytes

    wanted = Wanted(device, known_stream(stream), period_of(start, end))
    engine, free = request.app.state.engine, request.app.state.exports
    try:
        wanted.check(engine)
    except UsageError as error:
        raise HTTPException(404, str(error)) from error
    if not free.acquire(blocking=False):
        raise HTTPException(429, f"{AT_ONCE} exports are under way; ask again when one has ended")
    name = "-".join(part for part in (device or "all", stream) if part)

    pieces = (piece for _, piece in parquet_bytes(engine, wanted) if piece)
    weakref.finalize(pieces, free.release)  # also where the client went away before the first piece
    headers = {"content-disposition": f'attachment; filename="{name}.parquet"'}
    return StreamingResponse(pieces, media_type=MEDIA_TYPE, headers=headers)


def limit() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(AT_ONCE)
