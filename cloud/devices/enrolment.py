"""The routes by which a device gets its certificate and renews it (`edge_runtime.wire.enrolment`).

Whoever guesses at tokens or proofs is slowed down: by address, and all together, counted in the store. A device that shows its
certificate guesses at nothing: what strangers do never keeps it from renewing.
"""

from __future__ import annotations

import base64
import binascii
import logging
import math
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from cryptography import x509
from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Engine

from cloud.access.admission import address_of
from cloud.access.limits import SharedLimit
from cloud.access.roles import NOBODY
from cloud.api.described import first_of
from cloud.audit.log import REFUSED, record_alone
from cloud.ca.authority import serial_text
from cloud.devices.peer import PEER, certified
from cloud.enrol.desk import Desk, Proof
from cloud.enrol.refused import RefusedError
from edge_runtime import log
from edge_runtime.errors import GudgeonError
from edge_runtime.identity import load_or_make, public_text
from edge_runtime.wire.enrolment import HARDWARE, VERSION
from edge_runtime.wire.topics import SEGMENT

router = APIRouter()
#: wrong tries of one address, and of all: a second, and at once
OF_ONE, OF_ALL = (10 / 60, 10.0), (100 / 60, 100.0)
PEM_CHARS = 4096
M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    v: int = Field(ge=VERSION, le=VERSION)


class Enrol(Strict):
    token: str = Field(max_length=200)
    hardware: str = Field(max_length=128, pattern=HARDWARE.pattern)
    csr: str = Field(max_length=PEM_CHARS)


class Ask(Strict):
    pass


class Renew(Strict):
    csr: str = Field(max_length=PEM_CHARS)
    certificate: str = Field("", max_length=PEM_CHARS)
    challenge: str = Field("", max_length=200)
    proof: str = Field("", max_length=200)


class Tries:
    """Of `app.state.tries`."""

    def __init__(self, engine: Engine, now_ns: Callable[[], int]) -> None:
        self._one = SharedLimit(engine, "enrolment from", *OF_ONE, now_ns)
        self._all = SharedLimit(engine, "enrolment", *OF_ALL, now_ns)

    def check(self, who: str, known: bool) -> None:
        """`known`: it has shown a certificate."""
        wait_s = max(self._one.wait_s(who), 0.0 if known else self._all.wait_s(""))
        if wait_s > 0:
            seconds = str(math.ceil(wait_s))
            raise HTTPException(429, f"too many wrong tries; try again in {seconds} s", {"retry-after": seconds})

    def failed(self, who: str, known: bool) -> None:
        self._one.take(who)
        if not known:
            self._all.take("")


async def read_body(request: Request, kind: type[M]) -> M:
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        raise HTTPException(422, first_of(error)) from error


def body(kind: type[M]) -> Any:
    async def read(request: Request) -> M:
        return await read_body(request, kind)

    return Depends(read)


def named(device: str) -> str:
    if not SEGMENT.fullmatch(device):
        raise HTTPException(422, "device: expected 1 to 64 characters of A-Z a-z 0-9 _ . -")
    return device


def guarded(request: Request, what: str, subject: str, ask: Callable[[Desk], R], known: bool = False) -> R:
    """`ask`, unless this address has guessed too often, or this device where it is `known` by its certificate; a refusal counts
    as a guess, and is in the audit log."""
    address, tries = address_of(request), request.app.state.tries
    who = f"device {subject}" if known else address
    tries.check(who, known)
    try:
        return ask(request.app.state.desk)
    except RefusedError as error:
        tries.failed(who, known)
        stranger = NOBODY._replace(address=address, via="device")
        record_alone(request.app.state.engine, stranger, what, subject, detail={"reason": str(error)}, outcome=REFUSED)
        raise HTTPException(error.status, str(error)) from error
    except GudgeonError as error:
        log.say(logging.ERROR, "no certificate could be made", reason=str(error))
        raise HTTPException(503, "the cloud cannot sign now; try again later", {"retry-after": "60"}) from error


@router.get("/device/v1/roots")
def roots(request: Request) -> Any:
    return {"roots": request.app.state.desk.authority.roots().decode()}


@router.post("/device/v1/enrol")
def enrol(request: Request, asked: Annotated[Enrol, body(Enrol)]) -> Any:
    number = asked.token.partition(".")[0]
    ask = lambda desk: desk.enrol(asked.token, asked.hardware, asked.csr)  # noqa: E731
    return guarded(request, "identity.enrol", f"token {number}", ask).to_json()


@router.get("/device/v1/devices/{device}/key")
def key(request: Request, device: Annotated[str, Depends(certified)]) -> Any:
    """Of this cloud: what signs desired state and commands."""
    return {"public_key": public_text(load_or_make(request.app.state.settings.store.key_file))}


@router.get("/device/v1/devices/{device}/certificate")
def mine(request: Request, device: Annotated[str, Depends(certified)]) -> Any:
    """What a device asks to find out whether a certificate works."""
    shown = x509.load_der_x509_certificate(request.scope[PEER])
    ends_ns = round(shown.not_valid_after_utc.timestamp()) * 10**9
    return {"device": device, "serial": serial_text(shown.serial_number), "not_after_ns": ends_ns}


@router.post("/device/v1/devices/{device}/challenge")
def challenge(request: Request, device: Annotated[str, Depends(named)], asked: Annotated[Ask, body(Ask)]) -> Any:
    desk: Desk = request.app.state.desk
    return {"challenge": desk.challenges.make(device, desk.now_ns())}


@router.post("/device/v1/devices/{device}/certificate")
def renew(request: Request, device: Annotated[str, Depends(named)], asked: Annotated[Renew, body(Renew)]) -> Any:
    if not asked.proof:
        certified(request, device)
        return guarded(
            request, "identity.renew", device, lambda desk: desk.renew(device, asked.csr), known=True
        ).to_json()
    try:
        signature = base64.b64decode(asked.proof, validate=True)
    except binascii.Error as error:
        raise HTTPException(422, "proof: expected base64") from error
    proof = Proof(asked.certificate, asked.challenge, signature)
    ask = lambda desk: desk.renew_with_proof(device, asked.csr, proof)  # noqa: E731
    return guarded(request, "identity.renew", device, ask).to_json()
