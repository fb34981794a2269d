"""The application with a clock of its own, asked without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine

from cloud.access import operators
from cloud.access.admission import Access
from cloud.access.roles import Actor, Role
from cloud.app import make_app
from cloud.audit.log import rows
from cloud.bearer import load_or_make
from cloud.settings import AccessSection, CloudSettings, StoreSection
from cloud.tests.test_api import with_app
from edge_runtime.clock import FakeClock

SHELL = Actor("shell", Role.ADMIN, "cli")
WRITE = "/api/v1/devices/dev1/desired"
PASSWORD = "correct horse battery"


class Web:
    """The application with a clock of its own; `ask` is one request."""

    def __init__(self, engine: Engine, folder: Path, required: bool = True, **access: Any) -> None:
        store = StoreSection(key_file=folder / "cloud.key")
        self.settings = CloudSettings(store=store, access=AccessSection(required, **access))
        self.engine, self.clock = engine, FakeClock()
        self.file_token = load_or_make(self.settings.token_file)
        self.app = make_app(engine, self.settings, clock=self.clock)
        self.access: Access = self.app.state.access

    def ask(self, method: str, path: str, address: str = "127.0.0.1", **more: Any) -> httpx.Response:
        async def act(_: httpx.AsyncClient) -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, client=(address, 5000))
            cookies = more.pop("cookies", None)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", cookies=cookies) as client:
                return await client.request(method, path, **more)

        return with_app(self.app, act)  # type: ignore[no-any-return]

    def get(self, path: str, token: str = "", **more: Any) -> int:
        return self.ask("GET", path, headers=bearer(token), **more).status_code

    def post(self, path: str, token: str = "", **more: Any) -> int:
        more["headers"] = bearer(token) | more.pop("headers", {})
        return self.ask("POST", path, **{"json": {"set": {"metered": True}}, **more}).status_code

    def token(self, name: str, role: Role, token_role: Role | None = None, scopes: tuple[str, ...] = ()) -> str:
        now_ns = self.clock.wall_ns()
        if operators.operator(self.engine, name) is None:
            operators.add(self.engine, SHELL, name, role, None, now_ns)
        return operators.make_token(self.engine, SHELL, name, token_role or role, 30, scopes, "", now_ns)[1]

    def refused(self) -> list[tuple[str, str]]:
        with self.engine.connect() as connection:
            return [(row.actor, row.subject) for row, _ in rows(connection) if row.outcome == "refused"]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}
