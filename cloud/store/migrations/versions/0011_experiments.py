"""Experiments: models side by side on cohorts of devices."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0011", "0010"

STATEMENTS = (
    """CREATE TABLE experiment (
        id TEXT PRIMARY KEY NOT NULL, plan TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
        created_by TEXT NOT NULL, upto BIGINT NOT NULL, started_ns BIGINT NOT NULL, stopped_ns BIGINT NOT NULL,
        joined_ns BIGINT NOT NULL)""",
    """CREATE TABLE experiment_tally (
        experiment TEXT NOT NULL, device TEXT NOT NULL, arm INTEGER NOT NULL, parts BIGINT NOT NULL,
        events BIGINT NOT NULL, PRIMARY KEY (experiment, device, arm))""",
    """CREATE TABLE experiment_look (
        experiment TEXT NOT NULL, arm INTEGER NOT NULL, p FLOAT NOT NULL, looks BIGINT NOT NULL,
        PRIMARY KEY (experiment, arm))""",
    """CREATE TABLE experiment_outcome (
        experiment TEXT NOT NULL, device TEXT NOT NULL, part_epoch BIGINT NOT NULL, part_seq BIGINT NOT NULL,
        value INTEGER NOT NULL, at_ns BIGINT NOT NULL, PRIMARY KEY (experiment, device, part_epoch, part_seq))""",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
