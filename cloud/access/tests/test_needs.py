"""Every route has a row in the table and asks for the role that the row says; each role does what it may and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from sqlalchemy import Engine

from cloud.access import operators, sessions
from cloud.access.admission import COOKIE, CSRF_HEADER
from cloud.access.needs import Needs, Stays
from cloud.access.roles import Actor, Role
from cloud.access.routes import ROLES
from cloud.access.tests.made import SHELL, WRITE, Web
from cloud.api.described import all_routes
from cloud.app import make_app
from cloud.audit.log import rows
from cloud.settings import CloudSettings

DAY_S = 86_400


def routes_of(app: FastAPI) -> Iterator[tuple[str, str, Role | None]]:
    """Method, path and the role asked for, of all that the application serves."""
    for route in all_routes(app):
        asked = [d.call.role for d in _all(getattr(route, "dependant", None)) if isinstance(d.call, Needs)]
        for method in sorted(route.methods - {"HEAD"}):
            yield method, route.path, max(asked, default=None)


def _all(dependant: Any) -> Iterator[Any]:
    if dependant is not None:
        for one in dependant.dependencies:
            yield one
            yield from _all(one)


def test_every_route_asks_for_the_role_of_its_row(sqlite: Engine) -> None:
    found = {(method, path): role for method, path, role in routes_of(make_app(sqlite, CloudSettings()))}
    assert found == ROLES


def test_what_writes_is_never_open_to_viewers() -> None:
    for (method, path), role in ROLES.items():
        assert method == "GET" or path in ("/api/v1/login", "/api/v1/logout") or (role or 0) >= Role.OPERATOR


@pytest.fixture
def web(sqlite: Engine, tmp_path: Path) -> Web:
    return Web(sqlite, tmp_path)


def test_where_identities_are_required_nothing_is_told_without_one(web: Web) -> None:
    for (method, path), role in ROLES.items():
        if role is not None:
            assert web.ask(method, path.replace("{device}", "dev1").replace("{number}", "1")).status_code == 401, path
    assert web.get("/api/v1/health") == 200


def test_on_loopback_reading_is_open_and_writing_is_not(sqlite: Engine, tmp_path: Path) -> None:
    web = Web(sqlite, tmp_path, required=False)
    assert web.get("/api/v1/devices") == 200
    assert web.post(WRITE) == 401
    assert web.post(WRITE, web.file_token) == 200
    assert web.refused() == [("anonymous", f"POST {WRITE}")]


def test_the_file_token_counts_on_this_machine_only(web: Web) -> None:
    assert web.post(WRITE, web.file_token) == 200
    assert web.post(WRITE, web.file_token, address="10.0.0.7") == 401
    assert web.get("/api/v1/devices", web.file_token, address="::1") == 200


@pytest.mark.parametrize("role", list(Role))
def test_a_role_does_what_those_below_may(web: Web, role: Role) -> None:
    token = web.token("ada", role)
    assert web.get("/api/v1/devices", token) == 200
    assert web.post(WRITE, token) == (200 if role >= Role.OPERATOR else 403)
    with web.engine.connect() as connection:
        last = list(rows(connection))[-1][0]
    done = role >= Role.OPERATOR
    assert (last.actor, last.role, last.via, last.address) == ("ada", role.word, "token", "127.0.0.1")
    assert (last.action, last.outcome) == (("desired.change", "done") if done else ("request.refuse", "refused"))


def test_a_token_does_no_more_than_it_and_its_operator_may(web: Web) -> None:
    weak = web.token("ada", Role.ADMIN, Role.VIEWER)
    strong = web.token("ada", Role.ADMIN)
    assert web.post(WRITE, weak) == 403
    assert web.post(WRITE, strong) == 200
    operators.change(web.engine, SHELL, "ada", 5, role=Role.VIEWER)
    assert web.post(WRITE, strong) == 403
    with pytest.raises(ValueError, match="ada is viewer"):
        web.token("ada", Role.ADMIN)
    operators.change(web.engine, SHELL, "ada", 5, disabled=True)
    assert web.get("/api/v1/devices", strong) == 401


def test_a_token_is_for_its_scopes(web: Web) -> None:
    token = web.token("ada", Role.OPERATOR, scopes=("devices", "metrics"))
    assert web.get("/api/v1/devices", token) == 200
    assert web.get("/metrics", token) == 200
    assert web.get("/api/v1/events", token) == 403


def test_an_expired_or_revoked_token_counts_no_more(web: Web) -> None:
    first, second = web.token("ada", Role.OPERATOR), web.token("ada", Role.OPERATOR)
    operators.revoke_token(web.engine, SHELL, first.split("_")[1], 5)
    assert web.get("/api/v1/devices", first) == 401
    with pytest.raises(ValueError, match="not revoked yet"):
        operators.revoke_token(web.engine, SHELL, first.split("_")[1], 5)
    web.clock.advance(30 * DAY_S - 1)
    assert web.get("/api/v1/devices", second) == 200
    web.clock.advance(1)
    assert web.get("/api/v1/devices", second) == 401
    assert web.get("/api/v1/devices", second[:-1] + ("A" if second[-1] != "A" else "B")) == 401


def test_wrong_credentials_of_one_address_are_slowed_down(web: Web) -> None:
    token = web.token("ada", Role.VIEWER)
    found = [web.get("/api/v1/devices", "x" * 43, address="10.0.0.7") for _ in range(40)]
    assert found == [401] * 30 + [429] * 10
    assert web.get("/api/v1/devices", token, address="10.0.0.7") == 429
    assert web.get("/api/v1/devices", token, address="10.0.0.8") == 200
    assert len(web.refused()) == 20
    web.clock.advance(6)
    assert web.get("/api/v1/devices", token, address="10.0.0.7") == 200


def test_one_operator_asks_so_often_and_no_more(sqlite: Engine, tmp_path: Path) -> None:
    web = Web(sqlite, tmp_path, requests_per_s=2)
    token = web.token("ada", Role.VIEWER)
    assert [web.get("/api/v1/devices", token) for _ in range(10)] == [200] * 8 + [429] * 2
    web.clock.advance(1)
    assert web.get("/api/v1/devices", token) == 200


# ── sessions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def session(web: Web, role: Role = Role.OPERATOR) -> str:
    operators.add(web.engine, SHELL, "ada", role, None, 5)
    return sessions.begin(web.engine, Actor("ada", role, "session"), web.access.lifetimes, web.clock.wall_ns())


def test_a_session_writes_only_with_the_csrf_token_of_a_page_of_ours(web: Web) -> None:
    cookie = session(web)
    cookies, right = {COOKIE: cookie}, {CSRF_HEADER: sessions.csrf_of(cookie)}
    assert web.get("/api/v1/devices", cookies=cookies) == 200
    for headers in (
        {},
        {CSRF_HEADER: "x" * 64},
        right | {"sec-fetch-site": "cross-site"},
        right | {"sec-fetch-site": "same-site"},
    ):
        assert web.post(WRITE, cookies=cookies, headers=headers) == 401
    assert web.post(WRITE, cookies=cookies, headers=right | {"sec-fetch-site": "same-origin"}) == 200


def test_a_session_ends(web: Web) -> None:
    cookies = {COOKIE: session(web)}
    for _ in range(12):
        web.clock.advance(3599)
        assert web.get("/api/v1/devices", cookies=cookies) == 200
    web.clock.advance(12)  # 12 hours
    assert web.get("/api/v1/devices", cookies=cookies) == 401


@pytest.mark.parametrize("how", ["idle", "signed out", "password", "role", "disabled"])
def test_a_session_ends_early(web: Web, how: str) -> None:
    cookie = session(web)
    assert web.get("/api/v1/devices", cookies={COOKIE: cookie}) == 200
    if how == "idle":
        web.clock.advance(3600)
    elif how == "signed out":
        sessions.end(web.engine, SHELL, cookie, 5)
    else:
        change: dict[str, Any] = {"password": "p" * 12, "role": Role.VIEWER, "disabled": True}
        operators.change(web.engine, SHELL, "ada", 5, **{how: change[how]})
    assert web.get("/api/v1/devices", cookies={COOKIE: cookie}) == 401


def test_what_is_in_the_store_is_not_enough_to_come_in(web: Web) -> None:
    cookie, token = session(web), web.token("ada", Role.OPERATOR)
    with web.engine.connect() as connection:
        kept = [
            str(row)
            for name in ("session", "token", "audit")
            for row in connection.exec_driver_sql(f"SELECT * FROM {name}")
        ]
    assert kept
    assert not any(cookie in row or token.split("_", 2)[2] in row for row in kept)


def test_a_stream_ends_with_its_session(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.access.needs.ASKED_AGAIN_S", 0.0)
    cookie = session(web)
    headers = [(b"cookie", f"{COOKIE}={cookie}".encode())]
    scope = {"type": "http", "method": "GET", "path": "/api/v1/stream", "headers": headers, "app": web.app}
    may = Stays(Request(scope | {"client": ("127.0.0.1", 5000)}), Role.VIEWER)
    assert asyncio.run(may())
    sessions.end(web.engine, SHELL, cookie, 5)
    assert not asyncio.run(may())
