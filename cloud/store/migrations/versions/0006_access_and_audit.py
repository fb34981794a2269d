"""Operators, their tokens and sessions, and the audit log."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0006", "0005"

STATEMENTS = (
    """CREATE TABLE operator (
        name TEXT PRIMARY KEY NOT NULL, role TEXT NOT NULL, password_hash TEXT, disabled BOOLEAN NOT NULL,
        made_ns BIGINT NOT NULL)""",
    """CREATE TABLE token (
        id TEXT PRIMARY KEY NOT NULL, operator TEXT NOT NULL, hash TEXT NOT NULL, role TEXT NOT NULL,
        scopes TEXT NOT NULL, label TEXT NOT NULL, made_ns BIGINT NOT NULL, expires_ns BIGINT NOT NULL,
        revoked_ns BIGINT)""",
    """CREATE TABLE session (
        hash TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL, via TEXT NOT NULL,
        address TEXT NOT NULL, made_ns BIGINT NOT NULL, seen_ns BIGINT NOT NULL, expires_ns BIGINT NOT NULL)""",
    """CREATE TABLE audit (
        seq BIGINT PRIMARY KEY NOT NULL, at_ns BIGINT NOT NULL, actor TEXT NOT NULL, role TEXT NOT NULL,
        via TEXT NOT NULL, address TEXT NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL,
        outcome TEXT NOT NULL, detail TEXT NOT NULL, prev TEXT NOT NULL, hash TEXT NOT NULL)""",
    """CREATE TABLE audit_checkpoint (
        seq BIGINT PRIMARY KEY NOT NULL, at_ns BIGINT NOT NULL, message TEXT NOT NULL)""",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
