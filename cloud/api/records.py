"""Devices, Events, Decisions and rejected messages, in pages."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response

from cloud.api import models
from cloud.api.asked import After, From, Limit, To, Whole, period_of
from cloud.packml import RESULTS
from cloud.store import blobs, queries
from cloud.summary import device_state
from edge_runtime.errors import DataError, UsageError

router = APIRouter()

BYTES = "application/octet-stream"


@router.get("/devices", response_model=list[models.Device])
def devices(request: Request) -> Any:
    """Every device that ever sent something."""
    return [row | device_state(row) for row in queries.devices(request.app.state.engine)]


@router.get("/events", response_model=models.EventPage)
def events(
    request: Request,
    device: str | None = None,
    stream: str | None = None,
    kind: str | None = None,
    start: From = None,
    end: To = None,
    after: After = 0,
    limit: Limit = 100,
) -> Any:
    """Events in the order of arrival."""
    equal = {"device": device, "stream": stream, "kind": kind}
    wanted = queries.Page(after, limit, period_of(start, end))
    return page(queries.events(request.app.state.engine, equal, wanted), limit)


@router.get("/events/{number}/payload", response_class=Response, responses={200: {"content": {BYTES: {}}}})
def payload(request: Request, number: Annotated[int, Path(ge=1, le=2**63 - 1)]) -> Response:
    """The large payload whose first piece is this Event. 404 where it is none, 409 where pieces are missing."""
    try:
        return Response(blobs.payload(request.app.state.engine, number), media_type=BYTES)
    except UsageError as error:
        raise HTTPException(404, str(error)) from error
    except DataError as error:
        raise HTTPException(409, str(error)) from error


@router.get("/decisions", response_model=models.DecisionPage)
def decisions(
    request: Request,
    device: str | None = None,
    kind: str | None = None,
    result: Annotated[int | None, Query(ge=0, le=65535)] = None,
    part_epoch: Whole = None,
    part_seq: Whole = None,
    serial: Whole = None,
    lot: Whole = None,
    start: From = None,
    end: To = None,
    after: After = 0,
    limit: Limit = 100,
) -> Any:
    """Decisions in the order of arrival, those that a crash left unrecorded included."""
    equal = {"device": device, "kind": kind, "result": result, "part_epoch": part_epoch, "part_seq": part_seq}
    equal |= {"serial": serial, "lot": lot}
    wanted = queries.Page(after, limit, period_of(start, end))
    found = queries.decisions(request.app.state.engine, equal, wanted)
    return page([named(row) for row in found], limit)


@router.get("/rejections", response_model=models.RejectionPage)
def rejections(request: Request, after: After = 0, limit: Limit = 100) -> Any:
    """Messages that could not be read; the newest thousand are kept."""
    return page(queries.rejections(request.app.state.engine, after, limit), limit)


def named(row: queries.Row) -> queries.Row:
    return row | {"result_name": RESULTS.get(row["result"])}


def page(items: list[queries.Row], limit: int) -> dict[str, Any]:
    return {"items": items, "next_after": items[-1]["id"] if len(items) == limit else None}
