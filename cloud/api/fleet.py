"""The fleet: what each device has installed, runs and has confirmed, its tags and time zone, what became of it in rollouts."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import BaseModel, Field

from cloud.access.needs import needs
from cloud.access.roles import Actor, Role
from cloud.api.bodies import Strict, body_of
from cloud.api.rollouts import answered, note_of
from cloud.api.twin import Named
from cloud.rollout import fleet
from cloud.rollout.tags import check_filter

router = APIRouter()
VIEWERS = [needs(Role.VIEWER)]


class Slot(BaseModel):
    """As the device tells it (`edge_runtime.wire.update_status`)."""

    state: str
    target: str
    sha256: str
    rollout: str
    counter: int
    installed: str
    running: str
    confirmed: str
    reason: str
    fetched_bytes: int
    size_bytes: int
    since_ns: int
    measured: dict[str, float]
    changed_ns: int


class Assignment(BaseModel):
    """What it was last given, by slot set."""

    counter: int
    issued_ns: int
    expires_ns: int
    items: dict[str, Any]


class FleetDevice(BaseModel):
    """`told_ns` 0: it never asked. `floor`: versions below which it takes nothing."""

    device: str
    hardware: str
    boot_id: str
    zone: str
    first_seen_ns: int
    told_ns: int
    floor: dict[str, int]
    tags: dict[str, str]
    slots: dict[str, Slot]
    assignment: Assignment | None


class Change(BaseModel):
    number: int
    at_ns: int
    slot_set: str
    rollout: str
    state: str
    reason: str


class FleetDeviceHistory(FleetDevice):
    """`history`: the newest first; 50 are kept."""

    history: list[Change]


class FleetPage(BaseModel):
    items: list[FleetDevice]
    next_after: str | None


class TagChange(Strict):
    """`zone`: the time zone of its maintenance windows, such as Europe/Berlin; null leaves it."""

    set: dict[str, str] = Field(default_factory=dict, max_length=64)
    unset: list[str] = Field(default_factory=list, max_length=64)
    zone: str | None = Field(None, max_length=64)


@router.get("/fleet/devices", response_model=FleetPage, dependencies=VIEWERS)
def devices(
    request: Request,
    where: Annotated[list[str] | None, Query(max_length=32)] = None,
    after: Annotated[str, Query(max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Any:
    """By name; `where` (repeated): filters over tags, such as `line=7|8`; `after` is the last device that you have."""
    with answered():
        check_filter(where or ())
        items = fleet.devices(request.app.state.engine, after, limit, where or ())
    return {"items": items, "next_after": items[-1]["device"] if len(items) == limit else None}


@router.get("/fleet/devices/{device}", response_model=FleetDeviceHistory, dependencies=VIEWERS)
def device(request: Request, device: Named) -> Any:
    """One device, with what became of it in rollouts."""
    found = fleet.device(request.app.state.engine, device)
    if found is None:
        raise HTTPException(404, f"device {device} never asked for an update and has no tags")
    return found


@router.post("/fleet/devices/{device}/tags", response_model=FleetDeviceHistory)
def change_tags(
    request: Request,
    actor: Annotated[Actor, needs(Role.OPERATOR)],
    device: Named,
    change: Annotated[TagChange, Depends(body_of(TagChange))],
) -> Any:
    """Rollouts that start later, or still take devices, see the new tags."""
    engine, now_ns = request.app.state.engine, time.time_ns()
    with answered(), fleet.writing(engine).begin() as connection:
        fleet.set_tags(connection, device, change.set, change.unset, now_ns)
        if change.zone is not None:
            fleet.set_zone(connection, device, change.zone, now_ns)
        note_of(actor)(connection, "fleet.tag", device, change.model_dump())
    return fleet.device(engine, device)
