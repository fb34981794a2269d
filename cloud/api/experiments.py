"""Experiments: begun and stopped by releasers, labelled by operators, seen by viewers."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, Field

from cloud.access.needs import needs
from cloud.access.roles import Actor, Role
from cloud.api.bodies import Strict, body_of
from cloud.api.rollouts import Reason, answered, note_of
from cloud.experiments import store
from cloud.experiments.plan import ARMS, ID, Arm, Experiment
from edge_runtime.errors import GudgeonError

router = APIRouter()
VIEWERS = [needs(Role.VIEWER)]
Releaser = Annotated[Actor, needs(Role.RELEASER)]
Operator = Annotated[Actor, needs(Role.OPERATOR)]
OUTCOMES_BYTES = 1024 * 1024
INT64 = 2**63 - 1


class AskedArm(Strict):
    """`digest` of the bundle, or `target`: an artifact of the registry that has one."""

    name: str = Field(max_length=32)
    digest: str = Field("", max_length=64)
    target: str = Field("", max_length=200)
    share: float = 1.0


class ExperimentRequest(Strict):
    id: str = Field(max_length=40)
    arms: list[AskedArm] = Field(max_length=ARMS[1])
    metric: str = Field("reject", max_length=32)
    better: str = Field("low", max_length=8)
    effect: float = 0.02
    alpha: float = 0.05
    where: list[str] = Field(default_factory=list, max_length=32)


class Found(Strict):
    device: str = Field(max_length=64)
    part_epoch: int = Field(ge=0, le=INT64)
    part_seq: int = Field(ge=0, le=INT64)
    value: int = Field(ge=0, le=1)


class Outcomes(Strict):
    outcomes: list[Found] = Field(max_length=10_000)


class ArmReport(BaseModel):
    """`assigned`: devices of this arm; `devices`: those that decided with its bundle. `crossed`: decisions by another arm's
    bundle. `difference` to the first arm, with the interval that holds at all looks; `p`: the least of all looks."""

    name: str
    digest: str
    assigned: int
    devices: int
    crossed: int
    parts: int
    events: int
    share: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    looks: int | None = None


class Report(BaseModel):
    """`verdict`: open, different, or sample_ratio: devices are missing in one arm, and the comparison means nothing."""

    id: str
    state: str
    reason: str
    created_by: str
    started_ns: int
    stopped_ns: int
    metric: str
    better: str
    alpha: float
    effect: float
    sample_ratio_p: float
    verdict: str
    best: str | None
    arms: list[ArmReport]


class Kept(BaseModel):
    outcomes: int


@router.get("/experiments", response_model=list[Report], dependencies=VIEWERS)
def experiments(request: Request) -> Any:
    """As of the last look at each."""
    return store.listed(request.app.state.engine)


@router.post("/experiments", response_model=Report, status_code=201)
def create(
    request: Request, actor: Releaser, asked: Annotated[ExperimentRequest, Depends(body_of(ExperimentRequest))]
) -> Any:
    """Devices get the tag of their arm; Decisions that arrive from now on count."""
    state = request.app.state
    with answered():
        if not ID.fullmatch(asked.id):
            raise ValueError(f"id {asked.id!r}: expected 1 to 40 characters of a-z 0-9 -")
        arms = tuple(Arm(arm.name, _digest(state.registry, arm), arm.share) for arm in asked.arms)
        more = (asked.metric, asked.better, asked.effect, asked.alpha, tuple(asked.where))
        made = Experiment(arms, *more)
        return store.create(state.engine, asked.id, made, actor.name, time.time_ns(), note_of(actor))


def _digest(registry: Any, arm: AskedArm) -> str:
    if bool(arm.digest) == bool(arm.target):
        raise ValueError(f"arm {arm.name}: expected digest or target")
    if arm.digest:
        return arm.digest
    if registry is None:
        raise ValueError("this cloud has no registry of artifacts; name arms by their digest")
    try:
        found = registry.target(arm.target)
    except (GudgeonError, OSError) as error:
        raise HTTPException(503, f"the registry cannot be read: {error}") from error
    if found is None or not found.digest:
        raise ValueError(f"target {arm.target!r} is not published, or is no bundle")
    return str(found.digest)


@router.get("/experiments/{experiment}", response_model=Report, dependencies=VIEWERS)
def one(request: Request, experiment: str) -> Any:
    """With a look at what has arrived; looking often costs nothing but time."""
    engine = request.app.state.engine
    with answered():
        store.look(engine, experiment, time.time_ns())
        return store.report(engine, experiment)


@router.post("/experiments/{experiment}/outcomes", response_model=Kept)
def outcomes(
    request: Request,
    actor: Operator,
    experiment: str,
    asked: Annotated[Outcomes, Depends(body_of(Outcomes, OUTCOMES_BYTES))],
) -> Any:
    """The first word on a part holds."""
    rows = [store.Outcome(o.device, o.part_epoch, o.part_seq, o.value) for o in asked.outcomes]
    with answered():
        return {"outcomes": store.label(request.app.state.engine, experiment, rows, time.time_ns())}


@router.post("/experiments/{experiment}/stop", response_model=Report)
def stop(request: Request, actor: Releaser, experiment: str, asked: Annotated[Reason, Depends(body_of(Reason))]) -> Any:
    """A last look, then none. May be repeated."""
    with answered():
        why = asked.reason or f"by {actor.name}"
        return store.stop(request.app.state.engine, experiment, why, time.time_ns(), note_of(actor))
