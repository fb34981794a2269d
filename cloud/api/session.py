"""Sign in and out. The cookie is new with every sign-in, for this host alone, out of reach of scripts, and never sent from
elsewhere.

After OIDC the browser comes from another site and would not send a `SameSite=Strict` cookie with the page that follows at once,
so the answer is a page of our own that leads on.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from cloud.access import sessions
from cloud.access.admission import Access, address_of, check_page
from cloud.access.needs import needs
from cloud.access.oidc import PENDING_S, Pending, Provider
from cloud.access.roles import NOBODY, Actor, Role
from cloud.access.signing_in import Passwords, TooManyError
from cloud.api.bodies import Strict, body_of
from cloud.audit.row import plain
from edge_runtime.errors import GudgeonError

router = APIRouter()
pages = APIRouter()
OIDC_COOKIE = "gudgeon_oidc"
ONWARD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=/">'
    '<title>Gudgeon</title><a href="/">signed in: go on</a></html>'
)


class Login(Strict):
    name: str = Field(max_length=64)
    password: str = Field(max_length=1000)


class Session(BaseModel):
    """`name` null: nobody is signed in. `csrf`: what a request that writes carries in X-CSRF-Token. `required`: nothing can be
    read without signing in. `oidc`: there is a provider at /login/oidc."""

    name: str | None
    role: str | None
    via: str | None
    csrf: str | None
    required: bool
    oidc: bool


@router.get("/session", response_model=Session)
def session(request: Request) -> Any:
    """Who is signed in, if anybody is."""
    access: Access = request.app.state.access
    who, told = access.who(request), _told(request)
    if who is None:
        return told | dict.fromkeys(("name", "role", "via", "csrf"))
    csrf = sessions.csrf_of(who.cookie) if who.cookie else None
    return told | {"name": who.actor.name, "role": who.actor.role.word, "via": who.actor.via, "csrf": csrf}


@router.post("/login", response_model=Session)
def login(request: Request, given: Annotated[Login, Depends(body_of(Login))]) -> Response:
    """Begin a session with name and password."""
    access: Access = request.app.state.access
    passwords: Passwords = request.app.state.passwords
    address = address_of(request)
    nobody = NOBODY._replace(address=address)
    try:
        check_page(request.headers)
        actor = passwords.actor(given.name, given.password, address)
    except TooManyError as error:
        access.tell_refused(nobody, "session.begin", plain(given.name, 64), str(error))
        raise HTTPException(429, str(error), {"retry-after": str(error.wait_s)}) from error
    except ValueError as error:
        raise HTTPException(403, str(error)) from error
    if actor is None:
        access.tell_refused(nobody, "session.begin", plain(given.name, 64), "name and password do not fit")
        raise HTTPException(401, "name and password do not fit")
    cookie = _begin(request, actor)
    told = {"name": actor.name, "role": actor.role.word, "via": actor.via, "csrf": sessions.csrf_of(cookie)}
    answer = JSONResponse(told | _told(request))
    _set(request, answer, cookie)
    return answer


@router.post("/logout", status_code=204)
def logout(request: Request, actor: Annotated[Actor, needs(Role.VIEWER)]) -> Response:
    """End this session."""
    access: Access = request.app.state.access
    cookie = request.cookies.get(access.cookie_name, "")
    sessions.end(access.engine, actor, cookie, access.clock.wall_ns())
    answer = Response(status_code=204)
    answer.delete_cookie(access.cookie_name, path="/", secure=True, httponly=True, samesite="strict")
    return answer


@pages.get("/login/oidc", include_in_schema=False)
def begin_oidc(request: Request) -> Response:
    provider, pending = _oidc(request)
    try:
        begun = provider.begin()
    except (GudgeonError, ValueError) as error:
        raise HTTPException(502, str(error)) from error
    answer = RedirectResponse(begun.url, 303)
    answer.set_cookie(
        OIDC_COOKIE, pending.keep(begun), int(PENDING_S), path="/login/oidc", secure=True, httponly=True, samesite="lax"
    )
    return answer


@pages.get("/login/oidc/callback", include_in_schema=False)
def end_oidc(
    request: Request,
    state: Annotated[str, Query(max_length=200)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
    iss: Annotated[str | None, Query(max_length=1000)] = None,
    error: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    access: Access = request.app.state.access
    provider, pending = _oidc(request)
    address = address_of(request)
    try:
        begun = pending.take(state, request.cookies.get(OIDC_COOKIE, ""))
        if iss is not None and iss != access.settings.oidc.issuer:
            raise ValueError("the answer comes from another provider")
        if error or not code:
            raise ValueError(f"the provider refuses: {plain(error or 'no code')}")
        found = provider.finish(code, begun)
    except (GudgeonError, ValueError) as problem:
        access.tell_refused(NOBODY._replace(address=address), "session.begin", "oidc", str(problem))
        raise HTTPException(502 if isinstance(problem, GudgeonError) else 403, str(problem)) from problem
    answer = HTMLResponse(ONWARD)
    _set(request, answer, _begin(request, Actor(plain(found.name), found.role, "oidc", address), found.shown))
    answer.delete_cookie(OIDC_COOKIE, path="/login/oidc", secure=True, httponly=True, samesite="lax")
    return answer


def _oidc(request: Request) -> tuple[Provider, Pending]:
    provider: Provider | None = request.app.state.oidc
    if provider is None:
        raise HTTPException(404, "no OIDC provider is configured; see [oidc] in cloud.toml")
    return provider, request.app.state.oidc_pending


def _told(request: Request) -> dict[str, Any]:
    return {"required": not request.app.state.access.open, "oidc": request.app.state.oidc is not None}


def _begin(request: Request, actor: Actor, shown: str = "") -> str:
    access: Access = request.app.state.access
    before = request.cookies.get(access.cookie_name, "")
    return sessions.begin(access.engine, actor, access.lifetimes, access.clock.wall_ns(), before, shown)


def _set(request: Request, answer: Response, cookie: str) -> None:
    name = request.app.state.access.cookie_name
    answer.set_cookie(name, cookie, path="/", secure=True, httponly=True, samesite="strict")
