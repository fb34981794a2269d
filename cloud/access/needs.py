"""`needs(role)`: what a route asks of who calls it.

    @router.post("/rollouts/{name}/pause")
    def pause(request: Request, name: str, actor: Annotated[Actor, needs(Role.RELEASER)]) -> Any: ...

Each route has it or is listed as public, and has a row in `cloud.access.routes.ROLES`; a test walks all routes.
The application holds an `Access` in `app.state.access`.
"""

from __future__ import annotations

import time
from typing import Any

from fastapi import Depends, HTTPException, Request
from starlette.concurrency import run_in_threadpool

from cloud.access.admission import Access
from cloud.access.roles import Actor, Role

ASKED_AGAIN_S = 15.0


class Needs:
    def __init__(self, role: Role) -> None:
        self.role = role

    def __call__(self, request: Request) -> Actor:
        access: Access = request.app.state.access
        return access.admit(request, self.role)


NEEDS = {role: Needs(role) for role in Role}


def needs(role: Role) -> Any:
    """The dependency; its value is the Actor."""
    return Depends(NEEDS[role])


class Stays:
    """For streams: whether who listens still has the role. Their session may have ended; asked at most every 15 s."""

    def __init__(self, request: Request, role: Role) -> None:
        self._request, self._role = request, role
        self._asked_s = time.monotonic()

    async def __call__(self) -> bool:
        if time.monotonic() - self._asked_s < ASKED_AGAIN_S:
            return True
        self._asked_s = time.monotonic()
        try:
            await run_in_threadpool(NEEDS[self._role], self._request)
        except HTTPException as refusal:
            return refusal.status_code == 429
        return True
