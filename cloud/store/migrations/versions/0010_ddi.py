"""Clients of the DDI routes: their tokens, their actions, what they tell of themselves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0010", "0009"


def upgrade() -> None:
    op.create_table(
        "ddi_token",
        sa.Column("device", sa.Text, primary_key=True),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("created_ns", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "ddi_action",
        sa.Column("id", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("device", "target", "sha256", "sha1", "md5")),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("rollout", sa.Text, nullable=False),
        sa.Column("counter", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("state", "details")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("done", "of")),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("created_ns", "updated_ns")),
    )
    op.create_index("ix_ddi_action_device", "ddi_action", ["device"])
    op.create_table(
        "ddi_attribute",
        sa.Column("device", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
    )
