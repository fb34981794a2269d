"""Whose certificate came with the connection, and whether it may do what it asks.

The certificate is looked up at each request, so that a revocation, or an expiry, holds at once, on connections that stand
already too.
"""

from __future__ import annotations

from cryptography import x509
from fastapi import HTTPException, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from cloud.enrol.desk import Desk
from cloud.enrol.refused import RefusedError

#: in the scope of a request: the verified certificate in DER, or None
PEER = "gudgeon.peer"


class WithPeer:
    """What the listener puts around the application for each connection; tests put it around theirs."""

    def __init__(self, app: ASGIApp, certificate: bytes | None) -> None:
        self._app, self._certificate = app, certificate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, PEER: self._certificate}, receive, send)


def certified(request: Request, device: str) -> str:
    """A dependency of every route with `{device}` in its path: its certificate, and no other, opens it."""
    der = request.scope.get(PEER)
    if der is None:
        raise HTTPException(401, "expected a client certificate; enrol the device first (gudgeon enroll)")
    desk: Desk = request.app.state.desk
    try:
        desk.check(x509.load_der_x509_certificate(der), device)
    except RefusedError as error:
        raise HTTPException(error.status, str(error)) from error
    return device
