"""Events as a Parquet file, made while it is sent. The end of a file that broke off is missing, so that no reader takes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

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

    pieces = (piece for piece in parquet_bytes(engine, wanted) if piece)
    headers = {"content-disposition": f'attachment; filename="{name}.parquet"'}
    return _Releasing(free, pieces, media_type=MEDIA_TYPE, headers=headers)


class _Releasing(StreamingResponse):
    """Gives its place back when it was sent, or when the client went away."""

    def __init__(self, free: threading.BoundedSemaphore, content: Iterator[bytes], **more: Any) -> None:
        super().__init__(content, **more)
        self._free = free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._free.release()


def limit() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(AT_ONCE)
