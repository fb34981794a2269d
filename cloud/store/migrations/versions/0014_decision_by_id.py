"""A Decision is found by the `id` of its Event, and by its part; nobody looks for its `seq`, and an index for that costs every
commit."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0014", "0013"

SQLITE = (
    "ALTER TABLE decision RENAME TO decision_before",
    """CREATE TABLE decision (
        id INTEGER PRIMARY KEY NOT NULL, device TEXT NOT NULL, chain TEXT NOT NULL, seq BIGINT NOT NULL,
        kind TEXT NOT NULL, part_epoch BIGINT, part_seq BIGINT, result INTEGER, score FLOAT, label TEXT, reason TEXT,
        serial BIGINT, lot BIGINT, recipe BIGINT, latency_us BIGINT, bundle_digest TEXT, engine TEXT, variant TEXT,
        wall_ns BIGINT NOT NULL, received_ns BIGINT NOT NULL)""",
    "INSERT INTO decision SELECT * FROM decision_before ORDER BY id",
    "DROP TABLE decision_before",
    "CREATE INDEX decision_part ON decision (device, chain, part_epoch, part_seq)",
    "CREATE INDEX decision_result ON decision (result, id)",
    "CREATE INDEX decision_received ON decision (received_ns)",
)
POSTGRESQL = ("ALTER TABLE decision DROP CONSTRAINT decision_device_chain_seq_key",)


def upgrade() -> None:
    for statement in SQLITE if op.get_context().dialect.name == "sqlite" else POSTGRESQL:
        op.execute(statement)
