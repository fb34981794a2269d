"""Append to the audit log and read it, on both databases.

Rows are numbered without holes, so appends come one after the other: SQLite has one writer anyway; on PostgreSQL a lock is held
until the transaction ends. Take every other lock before `record`, and call it as the last thing of a transaction.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, select, text

from cloud.access.roles import Actor
from cloud.audit.row import GENESIS, AuditRow, detail_text, plain
from cloud.store import tables as t
from cloud.store.database import WRITES, is_postgresql

LOCK = 0x67_75_64_A0  # of PostgreSQL: who appends
PAGE = 500
DONE, REFUSED, FAILED = "done", "refused", "failed"


def record(
    connection: Connection,
    actor: Actor,
    action: str,
    subject: str,
    detail: Mapping[str, Any] | None = None,
    outcome: str = DONE,
    now_ns: int | None = None,
) -> int:
    """Append a row in this transaction, which must be one that writes; its number. `action` is `area.verb`, `subject` what it was
    done to. Put no secret into `detail`."""
    if is_postgresql(connection):
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    elif not connection.get_execution_options().get(WRITES):
        raise ValueError("audit.record needs a transaction that writes: engine.execution_options(**{WRITES: True})")
    last = newest(connection)
    seq, prev = (last.seq + 1, last.digest()) if last else (1, GENESIS)
    who = (plain(actor.name), actor.role.word, actor.via, plain(actor.address))
    what = (plain(action), plain(subject), plain(outcome), detail_text(detail))
    row = AuditRow(seq, time.time_ns() if now_ns is None else now_ns, *who, *what, prev)
    connection.execute(t.audit.insert().values(**row._asdict(), hash=row.digest()))
    return seq


def record_alone(engine: Engine, actor: Actor, action: str, subject: str, **more: Any) -> int:
    """`record` in a transaction of its own: for what was refused, and for what changes nothing in the store."""
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        return record(connection, actor, action, subject, **more)


def newest(connection: Connection) -> AuditRow | None:
    found = connection.execute(select(t.audit).order_by(t.audit.c.seq.desc()).limit(1)).mappings().first()
    return _row(found) if found else None


def rows(connection: Connection, after: int = 0, limit: int | None = None) -> Iterator[tuple[AuditRow, str]]:
    """Rows with their stored hash, in order, read in pages."""
    left = limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        query = select(t.audit).where(t.audit.c.seq > after).order_by(t.audit.c.seq).limit(size)
        page = connection.execute(query).mappings().all()
        for found in page:
            yield _row(found), str(found["hash"])
        if len(page) < size:
            return
        after, left = int(page[-1]["seq"]), None if left is None else left - size


def _row(found: RowMapping) -> AuditRow:
    return AuditRow(**{name: found[name] for name in AuditRow._fields})
