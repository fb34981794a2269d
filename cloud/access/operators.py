"""Operators, their passwords and API tokens, as the store has them. Every change is in the audit log, in the same transaction.

- A password is kept as an argon2id hash; of a token only the SHA-256 of its 256 random bits is kept.
- A token can do no more than its operator at that moment, its own role, and its scopes (first words of API paths) allow.
- An operator is never deleted, only disabled: a name in the audit log means one person for ever. Who is disabled, or gets another
  password or role, is signed out at once.
"""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from sqlalchemy import Connection, Engine, delete, select, update

from cloud.access.roles import Actor, Role
from cloud.audit import record
from cloud.store import tables as t
from cloud.store.database import WRITES

Row = dict[str, Any]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
SCOPE = re.compile(r"[a-z][a-z0-9_-]{0,31}")
TOKEN = re.compile(r"gud_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
PASSWORD_CHARS = (12, 200)
DAY_NS = 86_400 * 1_000_000_000
TOKEN_DAYS = (1, 366)


def hasher() -> PasswordHasher:
    """argon2id at RFC 9106's second recommended choice: 64 MiB, 3 passes."""
    return PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=4)


def writing(engine: Engine) -> Engine:
    return engine.execution_options(**{WRITES: True})


# ── operators ───────────────────────────────────────────────────────────────────────────────────────────────────────


def add(engine: Engine, by: Actor, name: str, role: Role, password: str | None, now_ns: int) -> None:
    """ValueError where the name is taken or not allowed, or the password too short."""
    if not NAME.fullmatch(name):
        raise ValueError(f"name {name!r}: expected 1 to 64 characters of A-Z a-z 0-9 _ . @ -, a letter or digit first")
    kept = _hash(password)
    with writing(engine).begin() as connection:
        if _operator(connection, name):
            raise ValueError(f"there is an operator {name} already; names are never used again")
        row = {"name": name, "role": role.word, "password_hash": kept, "disabled": False, "made_ns": now_ns}
        connection.execute(t.operator.insert().values(**row))
        told = {"role": role.word, "password": password is not None}
        record(connection, by, "operator.add", name, told, now_ns=now_ns)


def change(
    engine: Engine,
    by: Actor,
    name: str,
    now_ns: int,
    role: Role | None = None,
    password: str | None = None,
    disabled: bool | None = None,
) -> None:
    """Another role, password or state; what is None stays. The operator is signed out. ValueError where there is none."""
    values: Row = {} if role is None else {"role": role.word}
    told: Row = dict(values)
    if password is not None:
        values["password_hash"], told["password"] = _hash(password), True
    if disabled is not None:
        values["disabled"] = told["disabled"] = disabled
    with writing(engine).begin() as connection:
        if not _operator(connection, name):
            raise ValueError(f"no operator {name!r}; see gudgeon operators list")
        connection.execute(update(t.operator).where(t.operator.c.name == name).values(**values))
        connection.execute(delete(t.session).where(t.session.c.name == name))
        record(connection, by, "operator.change", name, told, now_ns=now_ns)


def sign_out(engine: Engine, by: Actor, name: str, now_ns: int) -> int:
    """All sessions of this name, also one that a provider of identities has told (`oidc:…`); how many. ValueError for none."""
    with writing(engine).begin() as connection:
        ended = connection.execute(delete(t.session).where(t.session.c.name == name)).rowcount
        if not ended:
            raise ValueError(f"nobody is signed in as {name!r}; see gudgeon operators sessions")
        record(connection, by, "session.end", name, {"sessions": ended}, now_ns=now_ns)
    return ended


def sessions(engine: Engine, now_ns: int) -> list[Row]:
    """Who is signed in: without what the cookies are known by."""
    c = t.session.c
    query = select(c.name, c.role, c.via, c.address, c.made_ns, c.seen_ns, c.expires_ns).where(c.expires_ns > now_ns)
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(query.order_by(c.seen_ns)).mappings()]


def listed(engine: Engine) -> list[Row]:
    with engine.connect() as connection:
        found = [dict(row) for row in connection.execute(select(t.operator).order_by(t.operator.c.name)).mappings()]
    return [row | {"password": row.pop("password_hash") is not None} for row in found]


def operator(engine: Engine, name: str) -> Row | None:
    with engine.connect() as connection:
        return _operator(connection, name)


def _operator(connection: Connection, name: str) -> Row | None:
    row = connection.execute(select(t.operator).where(t.operator.c.name == name)).mappings().one_or_none()
    return None if row is None else dict(row)


def _hash(password: str | None) -> str | None:
    low, high = PASSWORD_CHARS
    if password is None:
        return None
    if not low <= len(password) <= high:
        raise ValueError(f"a password has {low} to {high} characters, this one has {len(password)}")
    return hasher().hash(password)


@functools.cache
def _nobody() -> str:
    """The hash that the password of an unknown name is checked against, so that it takes as long as that of a known one."""
    return hasher().hash(secrets.token_hex(16))


def password_fits(row: Row | None, password: str) -> bool:
    """Whether this is the password of an operator who may sign in; takes as long where there is none."""
    kept = row["password_hash"] if row and not row["disabled"] else None
    try:
        hasher().verify(kept or _nobody(), password[: PASSWORD_CHARS[1] + 1])
    except (VerifyMismatchError, InvalidHashError):
        return False
    return kept is not None


# ── tokens ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_token(
    engine: Engine, by: Actor, name: str, role: Role, days: float, scopes: Sequence[str], label: str, now_ns: int
) -> tuple[str, str]:
    """Its id, and the token, which is told this once. ValueError where the operator may not have it."""
    low, high = TOKEN_DAYS
    if not low <= days <= high:
        raise ValueError(f"a token lives {low} to {high} days, not {days:g}")
    for scope in scopes:
        if not SCOPE.fullmatch(scope):
            raise ValueError(f"scope {scope!r}: expected the first word of an API path, such as devices")
    number = secrets.token_hex(6)
    text = f"gud_{number}_{secrets.token_urlsafe(32)}"
    row = {
        "id": number, "operator": name, "hash": digest(text), "role": role.word, "scopes": " ".join(sorted(set(scopes))),
        "label": label[:100], "made_ns": now_ns, "expires_ns": now_ns + round(days * DAY_NS),
    }  # fmt: skip
    with writing(engine).begin() as connection:
        found = _operator(connection, name)
        if found is None or found["disabled"]:
            raise ValueError(f"no operator {name!r} who may have a token; see gudgeon operators list")
        if role > Role.of(found["role"]):
            raise ValueError(f"{name} is {found['role']}; a token cannot do more, but {role.word} is asked for")
        connection.execute(t.token.insert().values(**row))
        told = {"token": number, "role": role.word, "scopes": row["scopes"], "expires_ns": row["expires_ns"]}
        record(connection, by, "token.create", name, told, now_ns=now_ns)
    return number, text


def revoke_token(engine: Engine, by: Actor, number: str, now_ns: int) -> None:
    with writing(engine).begin() as connection:
        c = t.token.c
        gone = connection.execute(
            update(t.token).where(c.id == number, c.revoked_ns.is_(None)).values(revoked_ns=now_ns)
        )
        if gone.rowcount != 1:
            raise ValueError(f"no token {number!r} that is not revoked yet; see gudgeon operators token list")
        owner = str(connection.execute(select(c.operator).where(c.id == number)).scalar_one())
        record(connection, by, "token.revoke", owner, {"token": number}, now_ns=now_ns)


def tokens(engine: Engine, name: str | None = None) -> list[Row]:
    """Without their hashes."""
    query = select(t.token).order_by(t.token.c.made_ns)
    with engine.connect() as connection:
        found = [dict(row) for row in connection.execute(query).mappings()]
    return [{k: v for k, v in row.items() if k != "hash"} for row in found if name in (None, row["operator"])]


def actor_of_token(engine: Engine, text: str, address: str, now_ns: int) -> tuple[Actor, frozenset[str]]:
    """Who shows this token, and its scopes (none: all). ValueError says why it does not count."""
    shape = TOKEN.fullmatch(text)
    with engine.connect() as connection:
        query = select(t.token).where(t.token.c.id == (shape.group(1) if shape else ""))
        row = connection.execute(query).mappings().one_or_none()
        if row is None or not secrets.compare_digest(row["hash"], digest(text)):
            raise ValueError("unknown token")
        owner = _operator(connection, row["operator"])
    if row["revoked_ns"] is not None:
        raise ValueError(f"token {row['id']} is revoked")
    if row["expires_ns"] <= now_ns:
        raise ValueError(f"token {row['id']} has expired")
    if owner is None or owner["disabled"]:
        raise ValueError(f"the operator of token {row['id']} is disabled")
    role = min(Role.of(row["role"]), Role.of(owner["role"]))
    return Actor(str(row["operator"]), role, "token", address), frozenset(str(row["scopes"]).split())


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
