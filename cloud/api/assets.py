"""Assets: health, remaining life, drift; and the alarms of all devices."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from cloud import assets as shown
from cloud.api import models
from cloud.store import assets as stored

router = APIRouter()

Name = Annotated[str | None, Query(max_length=128)]


@router.get("/assets", response_model=list[models.Asset])
def assets(request: Request, device: Name = None) -> Any:
    """Every asset that a device told of, with its alarms that are not normal."""
    return [shown.asset(row) for row in stored.assets(request.app.state.engine, device)]


@router.get("/alarms", response_model=list[models.Alarm])
def alarms(
    request: Request,
    device: Name = None,
    asset: Name = None,
    state: Name = None,
    everything: Annotated[bool, Query(alias="all", description="those that are normal again, too")] = False,
) -> Any:
    """The present state of each alarm, the worst first; its history is in /events, stream alarm."""
    equal = {"device": device, "asset": asset, "state": state}
    found = stored.alarms(request.app.state.engine, equal, everything or state is not None)
    return [shown.alarm(row) for row in found]
