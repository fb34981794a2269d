"""Every Event once, by (device, stream, seq)."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0001", None

STATEMENTS = (
    """CREATE TABLE device (
        device TEXT PRIMARY KEY NOT NULL, place TEXT NOT NULL, online BOOLEAN NOT NULL, boot_id TEXT NOT NULL,
        first_seen_ns BIGINT NOT NULL, last_seen_ns BIGINT NOT NULL)""",
    """CREATE TABLE event (
        id INTEGER PRIMARY KEY NOT NULL, device TEXT NOT NULL, stream TEXT NOT NULL, seq BIGINT NOT NULL,
        boot_id TEXT NOT NULL, kind TEXT NOT NULL, mono_ns BIGINT NOT NULL, wall_ns BIGINT NOT NULL,
        wall_uncertainty_ns BIGINT, received_ns BIGINT NOT NULL, body TEXT NOT NULL,
        UNIQUE (device, stream, seq))""",
    """CREATE TABLE decision (
        id INTEGER PRIMARY KEY NOT NULL, device TEXT NOT NULL, seq BIGINT NOT NULL, kind TEXT NOT NULL,
        part_epoch BIGINT, part_seq BIGINT, result INTEGER, score FLOAT, label TEXT, reason TEXT,
        serial BIGINT, lot BIGINT, recipe BIGINT, latency_us BIGINT, bundle_digest TEXT, engine TEXT, variant TEXT,
        wall_ns BIGINT NOT NULL, received_ns BIGINT NOT NULL, UNIQUE (device, seq))""",
    "CREATE INDEX decision_part ON decision (device, part_epoch, part_seq)",
    "CREATE INDEX decision_result ON decision (result, id)",
    "CREATE INDEX decision_received ON decision (received_ns)",
    """CREATE TABLE stream_head (
        device TEXT NOT NULL, stream TEXT NOT NULL, head BIGINT NOT NULL, top BIGINT NOT NULL,
        PRIMARY KEY (device, stream))""",
    """CREATE TABLE tally (
        device TEXT NOT NULL, name TEXT NOT NULL, value BIGINT NOT NULL, PRIMARY KEY (device, name))""",
    """CREATE TABLE latest (
        device TEXT NOT NULL, stream TEXT NOT NULL, kind TEXT NOT NULL, seq BIGINT NOT NULL,
        wall_ns BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (device, stream, kind))""",
    """CREATE TABLE rejection (
        id INTEGER PRIMARY KEY NOT NULL, wall_ns BIGINT NOT NULL, topic TEXT NOT NULL, reason TEXT NOT NULL,
        size_bytes BIGINT NOT NULL)""",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
