"""What a device is asked to be and to do: by operators, in bounded bodies."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from pydantic import BaseModel, Field

from cloud.access.needs import needs
from cloud.access.roles import Actor, Role
from cloud.api.bodies import Strict, body_of
from cloud.store import twin
from edge_runtime.identity import load_or_make as load_key
from edge_runtime.identity import public_text
from edge_runtime.wire.command import LONGEST_NS
from edge_runtime.wire.topics import SEGMENT

router = APIRouter()


class DesiredChange(Strict):
    """`set`: keys and their new values; `unset`: keys that go back to the device's own configuration."""

    set: dict[str, Any] = Field(default_factory=dict, max_length=100)
    unset: list[str] = Field(default_factory=list, max_length=100)


class CommandRequest(Strict):
    name: str
    args: dict[str, Any] = Field(max_length=20)
    expires_s: float = Field(30.0, gt=0, le=LONGEST_NS / 1e9)


class DesiredState(BaseModel):
    version: int
    issued_ns: int
    state: dict[str, Any]


class Refusal(BaseModel):
    version: int
    reason: str


class ReportedState(BaseModel):
    version: int
    at_ns: int
    state: dict[str, Any]
    refused: Refusal | None


class Difference(BaseModel):
    desired: Any
    reported: Any


class Twin(BaseModel):
    """`delta`: the keys in which the two differ; null is the device's own configuration."""

    device: str
    desired: DesiredState | None
    reported: ReportedState | None
    delta: dict[str, Difference]


class CommandState(BaseModel):
    """`accepted_ns`: the device has taken it up. `ended`: done, refused, expired, replayed or unknown; null while it is
    open. Both times are the device's."""

    id: str
    device: str
    name: str
    args: dict[str, Any]
    counter: int
    issued_ns: int
    expires_ns: int
    accepted_ns: int | None
    ended: str | None
    reason: str | None
    ended_ns: int | None


class CommandPage(BaseModel):
    items: list[CommandState]
    next_after: int | None


class Key(BaseModel):
    public_key: str


def known_name(device: str) -> str:
    if not SEGMENT.fullmatch(device):
        raise HTTPException(422, "device: expected 1 to 64 characters of A-Z a-z 0-9 _ . -")
    return device


Named = Annotated[str, Depends(known_name)]
VIEWERS = [needs(Role.VIEWER)]
Operator = Annotated[Actor, needs(Role.OPERATOR)]


@router.get("/key", response_model=Key)
def key(request: Request) -> Any:
    """The public key that this cloud signs with; what a device pins."""
    return {"public_key": public_text(load_key(request.app.state.settings.store.key_file))}


@router.get("/devices/{device}/desired", response_model=Twin, dependencies=VIEWERS)
def desired(request: Request, response: Response, device: Named) -> Any:
    """What the device is asked to be, and what it says that it is. The ETag is the version of the desired state."""
    return _tagged(response, twin.twin(request.app.state.engine, device))


@router.post("/devices/{device}/desired", response_model=Twin)
def change_desired(
    request: Request,
    response: Response,
    actor: Operator,
    device: Named,
    change: Annotated[DesiredChange, Depends(body_of(DesiredChange))],
    if_match: Annotated[str, Header(max_length=40)] = "*",
) -> Any:
    """Change keys of the desired state; it gets the next version, is signed, kept, and sent when the device can be reached. With
    If-Match it is changed only where it still has that version: else 412."""
    state = request.app.state
    seen = _version(if_match)
    try:
        sign = load_key(state.settings.store.key_file).sign
        found = twin.set_desired(state.engine, device, change.set, change.unset, sign, time.time_ns(), actor, seen)
    except twin.ChangedMeanwhileError as error:
        raise HTTPException(412, str(error)) from error
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    state.send(device)
    return _tagged(response, found)


def _tagged(response: Response, found: twin.Row) -> twin.Row:
    response.headers["etag"] = f'"{found["desired"]["version"] if found["desired"] else 0}"'
    return found


def _version(if_match: str) -> int | None:
    """None for any."""
    if if_match.strip() == "*":
        return None
    number = if_match.strip().strip('"')
    if not number.isdecimal():
        raise HTTPException(422, f'If-Match: expected "VERSION" or *, found {if_match!r}')
    return int(number)


@router.get("/devices/{device}/commands", response_model=CommandPage, dependencies=VIEWERS)
def commands(
    request: Request,
    device: Named,
    after: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Any:
    """Commands to the device, oldest first; `after` is a `counter`."""
    items = twin.commands(request.app.state.engine, device, after, limit)
    return {"items": items, "next_after": items[-1]["counter"] if len(items) == limit else None}


@router.get("/devices/{device}/commands/{number}", response_model=CommandState, dependencies=VIEWERS)
def command(request: Request, device: Named, number: str) -> Any:
    """One command, by its `id`."""
    found = twin.one_command(request.app.state.engine, device, number)
    if found is None:
        raise HTTPException(404, f"no command {number[:64]} to device {device}")
    return found


@router.post("/devices/{device}/commands", response_model=CommandState, status_code=202)
def send_command(
    request: Request,
    actor: Operator,
    device: Named,
    wanted: Annotated[CommandRequest, Depends(body_of(CommandRequest))],
) -> Any:
    """Sign a command, keep it, and send it as long as it has not expired."""
    state = request.app.state
    if twin.place_of(state.engine, device) is None:
        raise HTTPException(404, f"no device {device} has ever appeared; see /api/v1/devices")
    try:
        sign = load_key(state.settings.store.key_file).sign
        made = twin.make_command(
            state.engine, device, wanted.name, wanted.args, wanted.expires_s, sign, time.time_ns(), actor
        )
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    state.send(device)
    return made
