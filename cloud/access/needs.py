"""`needs(role)`: what a route asks of who calls it.

    @router.post("/rollouts/{name}/pause")
    def pause(request: Request, name: str, actor: Annotated[Actor, needs(Role.RELEASER)]) -> Any: ...

Each route has it or is listed as public, and has a row in `cloud.access.routes.ROLES`; a test walks all routes.
The application holds an `Access` in `app.state.access`.
"""

from __future__ import annotations

from typing import Any

from fastapi import Depends, Request

from cloud.access.admission import Access
from cloud.access.roles import Actor, Role


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
