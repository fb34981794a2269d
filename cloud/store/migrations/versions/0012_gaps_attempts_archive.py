"""When rollouts were last moved on; attempts that all web servers count together; what of the audit log was archived."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0012", "0011"

STATEMENTS = (
    """CREATE TABLE rollout_clock (
        id INTEGER PRIMARY KEY NOT NULL, ticked_ns BIGINT NOT NULL, resumed_ns BIGINT NOT NULL, gap_ns BIGINT NOT NULL)""",
    """CREATE TABLE attempt (
        name TEXT NOT NULL, subject TEXT NOT NULL, tokens FLOAT NOT NULL, at_ns BIGINT NOT NULL,
        PRIMARY KEY (name, subject))""",
    """CREATE TABLE audit_archive (
        seq BIGINT PRIMARY KEY NOT NULL, at_ns BIGINT NOT NULL, file TEXT NOT NULL, message TEXT NOT NULL)""",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
