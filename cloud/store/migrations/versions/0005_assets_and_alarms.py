"""The newest that devices tell of their assets, and the state of every alarm."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0005", "0004"

STATEMENTS = (
    """CREATE TABLE asset (
        device TEXT NOT NULL, asset TEXT NOT NULL, part TEXT NOT NULL, chain TEXT NOT NULL, seq BIGINT NOT NULL,
        wall_ns BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (device, asset, part))""",
    """CREATE TABLE alarm (
        device TEXT NOT NULL, alarm TEXT NOT NULL, asset TEXT NOT NULL, source TEXT NOT NULL, state TEXT NOT NULL,
        active BOOLEAN NOT NULL, severity INTEGER NOT NULL, kind TEXT NOT NULL, chain TEXT NOT NULL,
        seq BIGINT NOT NULL, raised_wall_ns BIGINT NOT NULL, wall_ns BIGINT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (device, alarm))""",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
