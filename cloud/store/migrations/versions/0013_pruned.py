"""Which delivered records are no longer stored."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0013", "0012"


def upgrade() -> None:
    op.execute(
        """CREATE TABLE pruned (
        device TEXT NOT NULL, chain TEXT NOT NULL, stream TEXT NOT NULL, month BIGINT NOT NULL, first BIGINT NOT NULL,
        last BIGINT NOT NULL, last_hash TEXT NOT NULL, since_ns BIGINT NOT NULL, until_ns BIGINT NOT NULL,
        PRIMARY KEY (device, chain, stream, month))"""
    )
