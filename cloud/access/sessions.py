"""Who is signed in. The cookie is 256 random bits made at each sign-in; the store has its hash, and ends it when it wants.

- A session ends after `session_hours`, after `idle_minutes` without a request, at sign-out, and when its operator is changed.
- The role of an operator is looked up anew with each request; that of OIDC is what the provider said at sign-in.
- The CSRF token is derived from the cookie, so that a page that cannot read it cannot guess it, and nothing more is stored.
"""

from __future__ import annotations

import hmac
import secrets
from typing import NamedTuple

from sqlalchemy import Engine, delete, select, update

from cloud.access.operators import digest, operator, writing
from cloud.access.roles import Actor, Role
from cloud.audit import record
from cloud.store import tables as t

TOUCH_NS = 60 * 1_000_000_000


class Lifetimes(NamedTuple):
    whole_ns: int
    idle_ns: int


def begin(engine: Engine, actor: Actor, lifetimes: Lifetimes, now_ns: int, before: str = "", shown: str = "") -> str:
    """The cookie of a new session; the one that came with the sign-in (`before`) ends. Those that are over are cleared away."""
    cookie = secrets.token_urlsafe(32)
    row = {
        "hash": digest(cookie), "name": actor.name, "role": actor.role.word, "via": actor.via, "address": actor.address,
        "made_ns": now_ns, "seen_ns": now_ns, "expires_ns": now_ns + lifetimes.whole_ns,
    }  # fmt: skip
    c = t.session.c
    with writing(engine).begin() as connection:
        over = (c.expires_ns <= now_ns) | (c.seen_ns <= now_ns - lifetimes.idle_ns) | (c.hash == digest(before))
        connection.execute(delete(t.session).where(over))
        connection.execute(t.session.insert().values(**row))
        record(connection, actor, "session.begin", actor.name, {"shown": shown} if shown else None, now_ns=now_ns)
    return cookie


def end(engine: Engine, actor: Actor, cookie: str, now_ns: int) -> None:
    with writing(engine).begin() as connection:
        connection.execute(delete(t.session).where(t.session.c.hash == digest(cookie)))
        record(connection, actor, "session.end", actor.name, now_ns=now_ns)


def actor_of_session(engine: Engine, cookie: str, lifetimes: Lifetimes, address: str, now_ns: int) -> Actor | None:
    """Who is signed in with this cookie; None where nobody is (any more)."""
    mine = t.session.c.hash == digest(cookie)
    with engine.connect() as connection:
        row = connection.execute(select(t.session).where(mine)).mappings().one_or_none()
    if row is None or row["expires_ns"] <= now_ns or row["seen_ns"] <= now_ns - lifetimes.idle_ns:
        return None
    role = Role.of(row["role"])
    if row["via"] == "session":
        owner = operator(engine, row["name"])
        if owner is None or owner["disabled"]:
            return None
        role = Role.of(owner["role"])
    if row["seen_ns"] <= now_ns - TOUCH_NS:
        with writing(engine).begin() as connection:
            connection.execute(update(t.session).where(mine).values(seen_ns=now_ns))
    return Actor(row["name"], role, row["via"], address)


def csrf_of(cookie: str) -> str:
    return hmac.new(cookie.encode(), b"gudgeon csrf", "sha256").hexdigest()
