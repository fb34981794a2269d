"""Who a request comes from, and whether they may.

1. `Authorization: Bearer`: the token of the token file, from this machine only (an admin), or an operator's API token.
2. The session cookie. A request that writes must also carry `X-CSRF-Token` and not come from another site.
3. Nobody: may read where the cloud listens on loopback and `[access] required` is false.

Refusals of credentials and of writing are in the audit log, so many of each address and no more. A browser adds no bearer header
by itself, so such a request needs no CSRF token.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from fastapi import HTTPException, Request
from sqlalchemy import Engine

from cloud import bearer
from cloud.access import operators, sessions
from cloud.access.limits import Limit
from cloud.access.roles import NOBODY, Actor, Role
from cloud.audit.log import REFUSED, record_alone
from cloud.settings import CloudSettings, is_loopback
from edge_runtime.clock import Clock

API_PREFIX = "/api/v1/"
CSRF_HEADER = "x-csrf-token"
COOKIE = "gudgeon_session"
HOST_COOKIE = "__Host-gudgeon_session"  # over TLS: no other host or path can set it
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
OWN_SITE = frozenset({"same-origin", "none"})
FILE_ACTOR = "token-file"


class Who(NamedTuple):
    """`cookie`: of the session, empty without one. `scopes`: first words of API paths; none: all."""

    actor: Actor
    scopes: frozenset[str] = frozenset()
    cookie: str = ""


class Access:
    """One for each web server: what it needs to know who asks, and limits on how much work it does for them, kept in memory."""

    def __init__(self, engine: Engine, settings: CloudSettings, clock: Clock) -> None:
        self.engine, self.settings, self.clock = engine, settings, clock
        section = settings.access
        self.lifetimes = sessions.Lifetimes(round(section.session_hours * 3600e9), round(section.idle_minutes * 60e9))
        self.cookie_name = HOST_COOKIE if settings.http.tls else COOKIE
        self.open = not section.required and is_loopback(settings.http.host)
        self._requests = Limit(section.requests_per_s, 4 * section.requests_per_s, self.now_s)
        self._wrong = Limit(0.2, 30, self.now_s)
        self._told = Limit(0.1, 20, self.now_s)

    def now_s(self) -> float:
        return self.clock.monotonic_ns() / 1e9

    def admit(self, request: Request, role: Role) -> Actor:
        """Who asks, if they have this role; HTTPException (401, 403, 429) if not."""
        address = address_of(request)
        try:
            who = self._who(request, address)
        except ValueError as error:
            self._wrong.take(address)
            raise self._refuse(request, NOBODY._replace(address=address), 401, str(error)) from error
        if who is None:
            if role <= Role.VIEWER and self.open:
                return NOBODY._replace(address=address)
            raise self._refuse(request, NOBODY._replace(address=address), 401, self._expected())
        if not self._requests.take(who.actor.name):
            raise HTTPException(429, "too many requests; ask again in a second", {"retry-after": "1"})
        if who.scopes and scope_of(request) not in who.scopes:
            told = f"this token is for {', '.join(sorted(who.scopes))} only"
            raise self._refuse(request, who.actor, 403, told)
        if who.actor.role < role:
            told = f"{who.actor.name} is {who.actor.role.word}; this needs {role.word}"
            raise self._refuse(request, who.actor, 403, told)
        return who.actor

    def who(self, request: Request) -> Who | None:
        """Who asks, without a role; None where nobody is known or what they show does not count."""
        try:
            return self._who(request, address_of(request))
        except (ValueError, HTTPException):
            return None

    def _who(self, request: Request, address: str) -> Who | None:
        header = request.headers.get("authorization", "")
        cookie = request.cookies.get(self.cookie_name, "")
        if (header or cookie) and (wait_s := self._wrong.wait_s(address)):
            seconds = str(int(wait_s) + 1)
            raise HTTPException(429, f"too many wrong credentials; ask again in {seconds} s", {"retry-after": seconds})
        if header:
            return self._by_bearer(header, address)
        if not cookie:
            return None
        now_ns = self.clock.wall_ns()
        actor = sessions.actor_of_session(self.engine, cookie, self.lifetimes, address, now_ns)
        if actor is None:
            return None  # signed out, or over: as if there was no cookie
        if request.method not in SAFE:
            check_csrf(request.headers, cookie)
        return Who(actor, cookie=cookie)

    def _by_bearer(self, header: str, address: str) -> Who:
        text = header.partition(" ")[2].strip()
        if operators.TOKEN.fullmatch(text):
            return Who(*operators.actor_of_token(self.engine, text, address, self.clock.wall_ns()))
        if bearer.allowed(header, bearer.load_or_make(self.settings.token_file)):
            if is_loopback(address):
                return Who(Actor(FILE_ACTOR, Role.ADMIN, "file", address))
            raise ValueError(
                "the token of the token file counts on this machine only; make one with gudgeon operators token"
            )
        raise ValueError(self._expected())

    def _expected(self) -> str:
        return (
            f"expected the token of {self.settings.token_file.name} or of an operator (Authorization: Bearer …), "
            "or a session (sign in at /login)"
        )

    def _refuse(self, request: Request, actor: Actor, status: int, reason: str) -> HTTPException:
        if request.method not in SAFE or "authorization" in request.headers:
            self.tell_refused(actor, "request.refuse", f"{request.method} {request.url.path}", f"{status}: {reason}")
        headers = {"www-authenticate": "Bearer"} if status == 401 else None
        return HTTPException(status, reason, headers)

    def tell_refused(self, actor: Actor, action: str, subject: str, reason: str) -> None:
        """Into the audit log: so many of each address and no more, so that nobody can fill it."""
        if self._told.take(actor.address):
            now_ns = self.clock.wall_ns()
            detail = {"reason": reason}
            record_alone(self.engine, actor, action, subject, detail=detail, outcome=REFUSED, now_ns=now_ns)


def check_page(headers: Mapping[str, str]) -> None:
    """ValueError where a page of another site sent this: such a page cannot add the header without asking first."""
    if headers.get("sec-fetch-site", "same-origin") not in OWN_SITE:
        raise ValueError("a page of another site sent this")
    if CSRF_HEADER not in headers:
        raise ValueError(f"expected a header {CSRF_HEADER}")


def check_csrf(headers: Mapping[str, str], cookie: str) -> None:
    """ValueError unless a page of ours sent this."""
    check_page(headers)
    if not secrets.compare_digest(headers.get(CSRF_HEADER, "").encode(), sessions.csrf_of(cookie).encode()):
        raise ValueError(f"expected the header {CSRF_HEADER} with the value that GET /api/v1/session tells")


def scope_of(request: Request) -> str:
    """The first word of an API path."""
    path = request.url.path
    return path.removeprefix(API_PREFIX).partition("/")[0] if path.startswith(API_PREFIX) else path.strip("/")


def address_of(request: Request) -> str:
    """Where from. An address within one IPv6 /64 is one address: its owner has all of them."""
    return network_of(request.client.host if request.client else "")


def network_of(host: str) -> str:
    """What limits are counted for."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        if not found.is_loopback:
            return str(ipaddress.ip_network((found, 64), strict=False).network_address)
    return str(found)
