"""Rows of the audit log, newest first, for people to read."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from sqlalchemy import Engine, select

from cloud.store import tables as t

LIMIT = 1000
SHOWN = ("seq", "at_ns", "actor", "role", "via", "address", "action", "subject", "outcome", "detail")


class Wanted(NamedTuple):
    """None: all. `did`: an action, or its first part (`rollout` for `rollout.pause`)."""

    actor: str | None = None
    did: str | None = None
    subject: str | None = None
    outcome: str | None = None


def listing(engine: Engine, wanted: Wanted, before: int | None = None, limit: int = 100) -> list[dict[str, Any]]:
    c = t.audit.c
    query = select(*(c[name] for name in SHOWN)).order_by(c.seq.desc()).limit(max(1, min(limit, LIMIT)))
    for name in ("actor", "subject", "outcome"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(c[name] == value)
    if wanted.did is not None:
        query = query.where((c.action == wanted.did) | c.action.startswith(wanted.did + ".", autoescape=True))
    if before is not None:
        query = query.where(c.seq < before)
    with engine.connect() as connection:
        found = [dict(row) for row in connection.execute(query).mappings()]
    return [row | {"detail": json.loads(row["detail"])} for row in found]
