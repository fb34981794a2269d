"""What the cloud asks of devices, and what they report: desired state, reported state, commands."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0004", "0003"

STATEMENTS = (
    """CREATE TABLE desired (
        device TEXT PRIMARY KEY NOT NULL, version BIGINT NOT NULL, state TEXT NOT NULL, issued_ns BIGINT NOT NULL,
        message TEXT NOT NULL)""",
    """CREATE TABLE reported (
        device TEXT PRIMARY KEY NOT NULL, version BIGINT NOT NULL, state TEXT NOT NULL, refused_version BIGINT,
        refused_reason TEXT, at_ns BIGINT NOT NULL)""",
    """CREATE TABLE command (
        id TEXT PRIMARY KEY NOT NULL, device TEXT NOT NULL, name TEXT NOT NULL, args TEXT NOT NULL,
        counter BIGINT NOT NULL, issued_ns BIGINT NOT NULL, expires_ns BIGINT NOT NULL, message TEXT NOT NULL,
        accepted_ns BIGINT, ended TEXT, reason TEXT, ended_ns BIGINT, UNIQUE (device, counter))""",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
