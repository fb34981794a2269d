"""Rollouts: made and steered by releasers, seen by viewers. What is done is in the audit log, in the transaction that does it.

404: no such rollout; 409: its state does not allow it; 403: another person must approve; 422: the plan or the target is wrong.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from cloud.access.needs import Stays, needs
from cloud.access.roles import Actor, Role
from cloud.api.bodies import Strict, body_of
from cloud.api.live import sse
from cloud.audit.log import REFUSED, record, record_alone
from cloud.rollout import shown, store
from cloud.rollout.offer import Artifact
from cloud.rollout.plan import read_plan
from cloud.rollout.states import DeviceState
from edge_runtime.errors import GudgeonError, UsageError

router = APIRouter()
VIEWERS = [needs(Role.VIEWER)]
Releaser = Annotated[Actor, needs(Role.RELEASER)]
LOOK_EVERY_S = 1.0


class RolloutRequest(Strict):
    """`id`: made up where it is left out. `target`: a path of the registry. `plan`: see docs/reference/rollouts.md.
    `replaces`: a live rollout on the same devices, which is aborted when this one starts. `start`: at once."""

    id: str = Field("", max_length=64)
    slot_set: str = Field(max_length=32)
    target: str = Field(max_length=200)
    plan: dict[str, Any] = Field(default_factory=dict)
    replaces: str = Field("", max_length=64)
    start: bool = True


class Reason(Strict):
    reason: str = Field("", max_length=300)


class Group(BaseModel):
    """`needed`: how many must confirm. `absent`: not heard of for long, and not waited for."""

    name: str
    state: str
    since_ns: int
    members: int
    needed: int
    absent: int
    counts: dict[str, int]


class Rollout(BaseModel):
    """`exposed`: devices that it was ever given to. `executed`: those that came to an end, `failed` the bad ones of them."""

    id: str
    slot_set: str
    target: str
    sha256: str
    state: str
    reason: str
    created_by: str
    approved_by: str
    replaces: str
    created_ns: int
    started_ns: int
    changed_ns: int
    plan: dict[str, Any]
    exposed: int
    in_flight: int
    confirmed: int
    failed: int
    executed: int
    groups: list[Group]


class RolloutDevice(BaseModel):
    """`tries`: how often it was given out. `group`: its number, from 0."""

    device: str
    group: int
    state: str
    tries: int
    offered_ns: int
    changed_ns: int
    reason: str


class RolloutDevicePage(BaseModel):
    items: list[RolloutDevice]
    next_after: str | None


def note_of(actor: Actor) -> store.Note:
    def note(connection: Connection, action: str, subject: str, detail: Mapping[str, Any]) -> None:
        record(connection, actor, action, subject, detail)

    return note


@contextmanager
def answered() -> Any:
    """What the store says, as HTTP."""
    try:
        yield
    except LookupError as error:
        raise HTTPException(404, str(error.args[0])) from error
    except UsageError as error:
        raise HTTPException(409, str(error)) from error
    except ValueError as error:
        raise HTTPException(422, str(error)) from error


def artifact(registry: Any, target: str) -> Artifact:
    if registry is None:
        raise HTTPException(422, "this cloud has no registry of artifacts; set registry.folder in cloud.toml")
    try:
        found = registry.target(target)
    except (GudgeonError, OSError) as error:
        raise HTTPException(503, f"the registry cannot be read: {error}") from error
    if found is None:
        raise HTTPException(422, f"target {target!r} is not published; `gudgeon repo status` tells what is")
    return Artifact(target, found.sha256, found.index, tuple(found.hardware))


@router.get("/rollouts", response_model=list[Rollout], dependencies=VIEWERS)
def rollouts(request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Any:
    """The newest first."""
    return shown.listed(request.app.state.engine, time.time_ns(), limit)


@router.post("/rollouts", response_model=Rollout, status_code=201)
def create(
    request: Request, actor: Releaser, asked: Annotated[RolloutRequest, Depends(body_of(RolloutRequest))]
) -> Any:
    """A new rollout; it starts, or waits for approval where its plan wants it, unless `start` is false."""
    state, note = request.app.state, note_of(actor)
    with answered():
        found = artifact(state.registry, asked.target)
        name = asked.id or f"r-{secrets.token_hex(4)}"
        wanted = store.Asked(name, asked.slot_set, found, read_plan(asked.plan), asked.replaces)
        return store.create(state.engine, wanted, actor.name, time.time_ns(), note, begin=asked.start)


@router.get("/rollouts/{rollout}", response_model=Rollout, dependencies=VIEWERS)
def one(request: Request, rollout: str) -> Any:
    """One rollout, with the progress of its groups."""
    with answered():
        return shown.show(request.app.state.engine, rollout, time.time_ns())


@router.get("/rollouts/{rollout}/devices", response_model=RolloutDevicePage, dependencies=VIEWERS)
def devices(
    request: Request,
    rollout: str,
    state: DeviceState | None = None,
    after: Annotated[str, Query(max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Any:
    """Its devices by name; `after` is the last one that you have."""
    rows = shown.devices(request.app.state.engine, rollout, state.value if state else None, after, limit)
    items = [{**row, "group": row["number"]} for row in rows]
    return {"items": items, "next_after": items[-1]["device"] if len(items) == limit else None}


@router.post("/rollouts/{rollout}/start", response_model=Rollout)
def start(request: Request, actor: Releaser, rollout: str) -> Any:
    with answered():
        return store.start(request.app.state.engine, rollout, actor.name, time.time_ns(), note_of(actor))


@router.post("/rollouts/{rollout}/approve", response_model=Rollout)
def approve(request: Request, actor: Releaser, rollout: str) -> Any:
    """By another person than the one who made it."""
    engine = request.app.state.engine
    with answered():
        try:
            return store.approve(engine, rollout, actor.name, time.time_ns(), note_of(actor))
        except PermissionError as error:
            record_alone(engine, actor, "rollout.approve", rollout, detail={"reason": str(error)}, outcome=REFUSED)
            raise HTTPException(403, str(error)) from error


@router.post("/rollouts/{rollout}/pause", response_model=Rollout)
def pause(request: Request, actor: Releaser, rollout: str, asked: Annotated[Reason, Depends(body_of(Reason))]) -> Any:
    """Nothing is begun; what is under way is staged and waits."""
    return _steered(store.pause, request, actor, rollout, asked.reason)


@router.post("/rollouts/{rollout}/resume", response_model=Rollout)
def resume(request: Request, actor: Releaser, rollout: str) -> Any:
    with answered():
        return store.resume(request.app.state.engine, rollout, time.time_ns(), note_of(actor))


@router.post("/rollouts/{rollout}/abort", response_model=Rollout)
def abort(request: Request, actor: Releaser, rollout: str, asked: Annotated[Reason, Depends(body_of(Reason))]) -> Any:
    """For good. Devices that have it keep it, or go back where the plan says so."""
    return _steered(store.abort, request, actor, rollout, asked.reason)


def _steered(act: Callable[..., Any], request: Request, actor: Actor, rollout: str, reason: str) -> Any:
    with answered():
        why = reason or f"by {actor.name}"
        return act(request.app.state.engine, rollout, why, time.time_ns(), note_of(actor))


@router.get(
    "/rollouts/{rollout}/stream",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
    dependencies=VIEWERS,
)
def stream(request: Request, rollout: str) -> StreamingResponse:
    """Server-sent events: `rollout` (as /rollouts/{rollout}), at first and then at each change; it ends with the rollout."""
    with answered():
        shown.show(request.app.state.engine, rollout, time.time_ns())
    return StreamingResponse(_messages(request, rollout), media_type="text/event-stream")


async def _messages(request: Request, rollout: str) -> AsyncIterator[str]:
    state, may = request.app.state, Stays(request, Role.VIEWER)
    before: Any = None
    yield "retry: 1000\n\n"
    while not state.stopping.is_set() and await may():
        now = await run_in_threadpool(partial(shown.show, state.engine, rollout, time.time_ns()))
        if now != before:
            yield sse("rollout", now)
            before = now
        if now["state"] == "aborted":
            return
        try:
            await asyncio.wait_for(state.stopping.wait(), LOOK_EVERY_S)
        except TimeoutError:
            pass
