"""The routes of the protocol, for any app that serves devices.

Who asks shows `Authorization: TargetToken …` (a token of that device), `GatewayToken …` (that of a gateway, where the settings
name one), or a client certificate for the id in the path. For a device whose identity was revoked none of them counts. Bodies
are bounded.

What has ended takes no other feedback (410); the same once more is answered as the first was.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from sqlalchemy import Engine

from cloud.ddi import documents, store
from cloud.ddi.actions import ACTIVE, SAID_AGAIN, TABLE, TOLD, Action, State, heard
from cloud.store.database import WRITES
from edge_runtime.machine import step
from edge_runtime.wire.assignment import Item
from edge_runtime.wire.topics import SEGMENT
from edge_runtime.wire.update_status import TEXT_LIMIT, SlotStatus, UpdateStatus

BODY_LIMIT_BYTES = 64 * 1024
HAL = "application/hal+json"
SLOT_SET = "os"
DETAILS = 50
#: the attribute that tells the class of hardware
HARDWARE = "hardware"


@dataclass(frozen=True)
class Ddi:
    """What stands behind the routes: `app.state.ddi`, None where they are not served. `ask` tells the rollouts of a device how
    it is and gives the counter of its assignment and what it is to run in its slot set `os`. `certified`: the id of the client
    certificate of a request, "" where there is none or it holds no longer."""

    engine: Engine
    ask: Callable[[UpdateStatus], tuple[int, Item | None]]
    file_of: store.FileOf
    certified: Callable[[Request, str], bool] = lambda request, device: False
    tenant: str = "DEFAULT"
    poll_s: int = 300
    gateway_token: str = ""
    now_ns: Callable[[], int] = time.time_ns

    def writing(self) -> Any:
        return self.engine.execution_options(**{WRITES: True}).begin()


async def _body(request: Request) -> dict[str, Any]:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_LIMIT_BYTES:
            raise HTTPException(413, f"the body is over the limit of {BODY_LIMIT_BYTES} bytes")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "the body is not JSON") from error
    if not isinstance(value, dict):
        raise HTTPException(400, "the body is not a JSON object")
    return value


Body = Annotated[dict[str, Any], Depends(_body)]


def admit(request: Request, tenant: str, device: str) -> Ddi:
    """Of this cloud's tenant, and who it says that it is."""
    ddi: Ddi | None = request.app.state.ddi
    if ddi is None or tenant != ddi.tenant or not SEGMENT.fullmatch(device):
        raise HTTPException(404, "no such tenant or controller")
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() == "targettoken":
        with ddi.engine.connect() as connection:
            fits = store.token_fits(connection, device, token)
    elif scheme.lower() == "gatewaytoken":
        fits = bool(ddi.gateway_token) and secrets.compare_digest(token.encode(), ddi.gateway_token.encode())
    else:
        fits = ddi.certified(request, device)
    with ddi.engine.connect() as connection:
        fits = fits and not store.revoked(connection, device)
    if not fits:
        raise HTTPException(401, "expected this device's TargetToken, a GatewayToken, or its client certificate")
    return ddi


Admitted = Annotated[Ddi, Depends(admit)]
router = APIRouter(prefix="/{tenant}/controller/v1/{device}", tags=["ddi"], dependencies=[Depends(admit)])


@router.get("")
def base(ddi: Admitted, request: Request, tenant: str, device: str) -> Response:
    """What is to be done, and when to ask again."""
    counter, item = ddi.ask(_status(ddi, device))
    path = ddi.file_of(item) if item is not None and item.go == "activate" else None
    image = store.image_of(path) if path is not None else None  # before the transaction: the first time takes a while
    with ddi.writing() as connection:
        action = store.reconcile(connection, device, item, counter, image, ddi.now_ns())
        asks = not store.attributes(connection, device)
        done = store.installed(connection, device)
    found = documents.base(_root(request, tenant, device), ddi.poll_s, action, done, asks)
    return JSONResponse(found, media_type=HAL)


@router.put("/configData")
def attributes(ddi: Admitted, device: str, body: Body) -> Response:
    """What the device tells of itself: names and values."""
    data, mode = body.get("data"), body.get("mode", "merge")
    if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()) or not isinstance(mode, str):
        raise HTTPException(400, "expected {mode, data}, with data an object of texts")
    try:
        with ddi.writing() as connection:
            store.keep_attributes(connection, device, data, mode, ddi.now_ns())
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    return Response()


@router.get("/deploymentBase/{number}")
def deployment(ddi: Admitted, request: Request, tenant: str, device: str, number: int) -> Response:
    """The artifact to install."""
    action = _action(ddi, device, number)
    if action.state in (State.CANCELING, State.CANCELED):
        raise HTTPException(404, f"action {number} is {action.state.value}")
    return JSONResponse(documents.deployment(_root(request, tenant, device), action), media_type=HAL)


@router.get("/installedBase/{number}")
def installed(ddi: Admitted, request: Request, tenant: str, device: str, number: int) -> Response:
    """The artifact that the device has installed with this action."""
    action = _action(ddi, device, number)
    if action.state is not State.INSTALLED:
        raise HTTPException(404, f"action {number} is {action.state.value}, not installed")
    return JSONResponse(documents.deployment(_root(request, tenant, device), action), media_type=HAL)


@router.post("/deploymentBase/{number}/feedback")
def feedback(ddi: Admitted, device: str, number: int, body: Body) -> Response:
    """How it goes. `closed` with `success`: installed."""
    _report(ddi, device, number, body, of_cancel=False)
    return Response()


@router.get("/cancelAction/{number}")
def cancel(ddi: Admitted, device: str, number: int) -> Response:
    """The action to stop."""
    action = _action(ddi, device, number)
    if action.state is not State.CANCELING:
        raise HTTPException(404, f"action {number} is {action.state.value}; it is not being canceled")
    return JSONResponse(documents.cancel(action), media_type=HAL)


@router.post("/cancelAction/{number}/feedback")
def cancel_feedback(ddi: Admitted, device: str, number: int, body: Body) -> Response:
    """Whether it was stopped."""
    _report(ddi, device, number, body, of_cancel=True)
    return Response()


@router.get("/softwaremodules/{module}/artifacts")
def artifacts(ddi: Admitted, request: Request, tenant: str, device: str, module: int) -> Response:
    """The files of a module; a module here is the artifact of one action."""
    action = _action(ddi, device, module)
    return JSONResponse(documents.artifacts(_root(request, tenant, device), action), media_type=HAL)


@router.api_route("/softwaremodules/{module}/artifacts/{filename}", methods=["GET", "HEAD"])
def artifact(ddi: Admitted, device: str, module: int, filename: str) -> Response:
    """The file, whole or in part (Range), or its MD5 in the format of `md5sum`."""
    action = _action(ddi, device, module)
    if filename == f"{action.filename}.MD5SUM":
        return PlainTextResponse(f"{action.md5}  {action.filename}\n")
    path = ddi.file_of(Item(action.target, action.sha256)) if filename == action.filename else None
    if path is None or action.state not in ACTIVE | {State.INSTALLED}:
        raise HTTPException(404, f"action {module} has no file {filename[:80]!r} to fetch")
    return _file(path, action)


def _file(path: Path, action: Action) -> FileResponse:
    return FileResponse(path, media_type="application/octet-stream", headers={"etag": f'"{action.sha256}"'})


def _root(request: Request, tenant: str, device: str) -> str:
    return f"{str(request.base_url).rstrip('/')}/{tenant}/controller/v1/{device}"


def _action(ddi: Ddi, device: str, number: int) -> Action:
    with ddi.engine.connect() as connection:
        action = store.one_action(connection, device, number) if 0 < number < 2**31 else None
    if action is None:
        raise HTTPException(404, f"device {device} has no action {number}")
    return action


def _report(ddi: Ddi, device: str, number: int, body: dict[str, Any], of_cancel: bool) -> None:
    status = body.get("status")
    result = status.get("result") if isinstance(status, dict) else None
    if not isinstance(status, dict) or not isinstance(result, dict):
        raise HTTPException(400, "expected {status: {execution, result: {finished}}}")
    try:
        event = heard(str(status.get("execution", "")), str(result.get("finished", "")), of_cancel)
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    details = status.get("details")
    text = "; ".join(str(line) for line in details[:DETAILS]) if isinstance(details, list) else ""
    ended = _action(ddi, device, number).state
    if ended not in ACTIVE and (event is None or step(TABLE, ended, event) is ended):
        if (ended, event) in SAID_AGAIN:
            return  # an answer was lost
        raise HTTPException(410, f"action {number} has ended: {ended.value}")
    with ddi.writing() as connection:
        store.report(connection, device, number, event, text, _progress(result), ddi.now_ns())
    ddi.ask(_status(ddi, device))  # the rollouts hear of it at once


def _status(ddi: Ddi, device: str) -> UpdateStatus:
    """What the rollouts hear of it. `running` and `confirmed` stay empty: nobody has said so."""
    with ddi.engine.connect() as connection:
        action, told = store.newest_action(connection, device), store.attributes(connection, device)
        done = store.installed(connection, device)
    installed = done.sha256 if done else ""
    slot = SlotStatus(installed=installed)
    if action is not None:
        reason = action.details if action.state is State.FAILED else ""
        slot = SlotStatus(
            TOLD[action.state], action.target, action.sha256, action.rollout, action.counter, installed,
            reason=reason[:TEXT_LIMIT], size_bytes=action.size_bytes, since_ns=action.updated_ns,
        )  # fmt: skip
    return UpdateStatus(device, "", told.get(HARDWARE, ""), ddi.now_ns(), {}, {SLOT_SET: slot})


def _progress(result: dict[str, Any]) -> tuple[int, int]:
    progress = result.get("progress")
    numbers = [progress.get(name) for name in ("cnt", "of")] if isinstance(progress, dict) else [0, 0]
    done, of = (n if type(n) is int and 0 <= n < 2**31 else 0 for n in numbers)
    return done, of
