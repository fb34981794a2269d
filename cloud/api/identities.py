"""Which devices may have certificates: tokens, revocation, replacement. Only where the cloud listens for devices."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, Field

from cloud.access.needs import needs
from cloud.access.roles import Actor, Role
from cloud.api.bodies import Strict, body_of
from cloud.api.twin import Named
from cloud.enrol import listing
from cloud.enrol.desk import LONGEST_TTL, Desk
from cloud.enrol.refused import RefusedError
from edge_runtime.wire.enrolment import HARDWARE, Token

router = APIRouter()
VIEWERS = [needs(Role.VIEWER)]
Admin = Annotated[Actor, needs(Role.ADMIN)]
R = TypeVar("R")


class TokenRequest(Strict):
    hardware: str = Field(max_length=128, pattern=HARDWARE.pattern)
    ttl_s: float = Field(3600.0, gt=0, le=LONGEST_TTL.total_seconds())


class RevocationRequest(Strict):
    reason: str = Field(min_length=1, max_length=200)


class CertificateState(BaseModel):
    serial: str
    issued_ns: int
    not_before_ns: int
    not_after_ns: int
    revoked_ns: int | None
    reason: str | None


class TokenState(BaseModel):
    """`state`: open, used, expired or withdrawn."""

    id: str
    hardware: str
    made_ns: int
    expires_ns: int
    used_ns: int | None
    state: str


class Identity(BaseModel):
    """`state`: waiting (no certificate yet), valid, expired or revoked. `certificate` is the newest one."""

    device: str
    hardware: str
    state: str
    since_ns: int
    revoked_ns: int | None
    reason: str | None
    certificate: CertificateState | None


class IdentityDetail(Identity):
    certificates: list[CertificateState]
    tokens: list[TokenState]


class IdentityPage(BaseModel):
    items: list[Identity]


class NewToken(BaseModel):
    """The token is told this once."""

    device: str
    hardware: str
    token: str
    expires_ns: int


class Revocation(BaseModel):
    device: str
    serials: list[str]


def desk_of(request: Request) -> Desk:
    desk: Desk | None = request.app.state.desk
    if desk is None:
        raise HTTPException(409, "this cloud does not listen for devices; set devices.serve = true in cloud.toml")
    return desk


Asked = Annotated[Desk, Depends(desk_of)]


def _done(ask: Callable[[], R]) -> R:
    try:
        return ask()
    except RefusedError as error:
        raise HTTPException(error.status if error.status != 403 else 409, str(error)) from error


@router.get("/identities", response_model=IdentityPage, dependencies=VIEWERS)
def identities(request: Request) -> Any:
    """Every device that was given a token, with its newest certificate."""
    return {"items": listing.identities(request.app.state.engine, time.time_ns())}


@router.get("/identities/{device}", response_model=IdentityDetail, dependencies=VIEWERS)
def identity(request: Request, device: Named) -> Any:
    """One device: all of its certificates and tokens."""
    found = listing.identity(request.app.state.engine, device, time.time_ns())
    if found is None:
        raise HTTPException(404, f"no device {device} was ever given a token")
    return found


@router.post("/identities/{device}/token", response_model=NewToken)
def token(
    actor: Admin, desk: Asked, device: Named, wanted: Annotated[TokenRequest, Depends(body_of(TokenRequest))]
) -> Any:
    """A one-time token for this device on this hardware."""
    return _told(desk, device, wanted, _done(lambda: desk.make_token(device, *_what(wanted), actor)))


@router.post("/identities/{device}/replace", response_model=NewToken)
def replace(
    actor: Admin, desk: Asked, device: Named, wanted: Annotated[TokenRequest, Depends(body_of(TokenRequest))]
) -> Any:
    """Give the name to other hardware (or back to the same): what had it before is revoked; a token for the new one."""
    return _told(desk, device, wanted, _done(lambda: desk.replace(device, *_what(wanted), actor)))


@router.post("/identities/{device}/revoke", response_model=Revocation)
def revoke(
    actor: Admin, desk: Asked, device: Named, wanted: Annotated[RevocationRequest, Depends(body_of(RevocationRequest))]
) -> Any:
    """The device is nobody any more: at once over HTTPS, within seconds at the broker."""
    return {"device": device, "serials": _done(lambda: desk.revoke(device, wanted.reason, actor))}


def _what(wanted: TokenRequest) -> tuple[str, timedelta]:
    return wanted.hardware, timedelta(seconds=wanted.ttl_s)


def _told(desk: Desk, device: str, wanted: TokenRequest, made: Token) -> dict[str, Any]:
    ends_ns = desk.now_ns() + round(wanted.ttl_s * 1e9)
    return {"device": device, "hardware": wanted.hardware, "token": made.text(), "expires_ns": ends_ns}
