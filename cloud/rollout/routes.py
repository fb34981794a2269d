"""The route of the devices: status in, assignment out. It can be mounted on any application.

    POST /device/v1/devices/{device}/update      body and answer: `edge_runtime.wire.update_status`

Who may call it for a device is told by `certified`, which the application brings: it returns the id of the certificate, or
refuses. 400: the body is not a status; 409: it is of another device; 413: it is too long.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import Response
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from cloud.rollout.polling import answer
from cloud.rollout.registry import Registry
from edge_runtime.wire.update_status import LIMIT_BYTES, UpdateStatus, read_status

Clock = Callable[[], int]


def update_routes(engine: Engine, registry: Registry, certified: Callable[..., Any], now_ns: Clock) -> APIRouter:
    """`certified(request, device) -> str`: FastAPI's dependency. `now_ns`: Unix time."""
    router = APIRouter()

    @router.post("/device/v1/devices/{device}/update", tags=["device"])
    async def update(request: Request, device: Annotated[str, Depends(certified)]) -> Response:
        """What the device runs; the answer is its assignment."""
        status = _status(await _body(request), device)
        found = await run_in_threadpool(partial(answer, engine, [status], registry, now_ns()))
        return Response(found[device].to_json(), media_type="application/json")

    return router


def _status(body: bytes, device: str) -> UpdateStatus:
    try:
        status = read_status(body)
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    if status.device != device:
        raise HTTPException(409, f"the status is of device {status.device[:64]!r}, the path names {device}")
    return status


async def _body(request: Request) -> bytes:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > LIMIT_BYTES:
            raise HTTPException(413, f"the status is over the limit of {LIMIT_BYTES} bytes")
    return data
