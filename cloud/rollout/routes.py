"""The route of the devices: status in, assignment out.

    POST /device/v1/devices/{device}/update      body and answer: `edge_runtime.wire.update_status`

400: the body is not a status; 409: it is of another device; 413: it is too long; 503: this cloud has no registry,
or cannot read it. `app.state` has `engine`, `registry` (or None), `pace` and `now_ns`.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from cloud.devices.peer import certified
from cloud.rollout.polling import answer
from edge_runtime import log
from edge_runtime.errors import GudgeonError
from edge_runtime.wire.update_status import LIMIT_BYTES, UpdateStatus, read_status

router = APIRouter()


@router.post("/device/v1/devices/{device}/update")
async def update(request: Request, device: Annotated[str, Depends(certified)]) -> Response:
    """What the device runs; the answer is its assignment."""
    state = request.app.state
    status = _status(await _body(request), device)
    if state.registry is None:
        raise HTTPException(503, "this cloud has no registry of artifacts; set registry.folder in cloud.toml")
    try:
        found = await run_in_threadpool(
            partial(answer, state.engine, [status], state.registry, state.now_ns(), state.pace)
        )
    except (GudgeonError, OSError) as error:
        log.say(logging.ERROR, "no assignment could be given", device=device, reason=str(error))
        raise HTTPException(503, "the registry of artifacts cannot be used now; try again later") from error
    return Response(found[device].to_json(), media_type="application/json")


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
