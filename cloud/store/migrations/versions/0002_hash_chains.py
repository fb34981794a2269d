"""Records in hash chains; what came before has the chain "", and a record line without a hash."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0002", "0001"

STATEMENTS = (
    "ALTER TABLE event RENAME TO event_1",
    """CREATE TABLE event (
        id INTEGER PRIMARY KEY NOT NULL, device TEXT NOT NULL, chain TEXT NOT NULL, stream TEXT NOT NULL,
        seq BIGINT NOT NULL, boot_id TEXT NOT NULL, kind TEXT NOT NULL, mono_ns BIGINT NOT NULL,
        wall_ns BIGINT NOT NULL, wall_uncertainty_ns BIGINT, received_ns BIGINT NOT NULL, record TEXT NOT NULL,
        UNIQUE (device, chain, stream, seq))""",
    """INSERT INTO event SELECT id, device, '', stream, seq, boot_id, kind, mono_ns, wall_ns, wall_uncertainty_ns,
        received_ns, '{"body":' || body || '}' FROM event_1""",
    "DROP TABLE event_1",
    "ALTER TABLE decision RENAME TO decision_1",
    "DROP INDEX decision_part",
    "DROP INDEX decision_result",
    "DROP INDEX decision_received",
    """CREATE TABLE decision (
        id INTEGER PRIMARY KEY NOT NULL, device TEXT NOT NULL, chain TEXT NOT NULL, seq BIGINT NOT NULL,
        kind TEXT NOT NULL, part_epoch BIGINT, part_seq BIGINT, result INTEGER, score FLOAT, label TEXT, reason TEXT,
        serial BIGINT, lot BIGINT, recipe BIGINT, latency_us BIGINT, bundle_digest TEXT, engine TEXT, variant TEXT,
        wall_ns BIGINT NOT NULL, received_ns BIGINT NOT NULL, UNIQUE (device, chain, seq))""",
    """INSERT INTO decision SELECT id, device, '', seq, kind, part_epoch, part_seq, result, score, label, reason,
        serial, lot, recipe, latency_us, bundle_digest, engine, variant, wall_ns, received_ns FROM decision_1""",
    "DROP TABLE decision_1",
    "CREATE INDEX decision_part ON decision (device, chain, part_epoch, part_seq)",
    "CREATE INDEX decision_result ON decision (result, id)",
    "CREATE INDEX decision_received ON decision (received_ns)",
    "ALTER TABLE stream_head RENAME TO stream_head_1",
    """CREATE TABLE stream_head (
        device TEXT NOT NULL, chain TEXT NOT NULL, stream TEXT NOT NULL, head BIGINT NOT NULL, top BIGINT NOT NULL,
        duplicates BIGINT NOT NULL, PRIMARY KEY (device, chain, stream))""",
    "INSERT INTO stream_head SELECT device, '', stream, head, top, 0 FROM stream_head_1",
    "DROP TABLE stream_head_1",
    """CREATE TABLE chain (
        device TEXT NOT NULL, chain TEXT NOT NULL, key TEXT NOT NULL, first_seen_ns BIGINT NOT NULL,
        counter BIGINT NOT NULL, checkpoint TEXT NOT NULL, signature TEXT NOT NULL, PRIMARY KEY (device, chain))""",
    """CREATE TABLE span (
        device TEXT NOT NULL, chain TEXT NOT NULL, stream TEXT NOT NULL, first BIGINT NOT NULL, last BIGINT NOT NULL,
        PRIMARY KEY (device, chain, stream, first))""",
    """CREATE TABLE shed (
        device TEXT NOT NULL, chain TEXT NOT NULL, stream TEXT NOT NULL, policy TEXT NOT NULL, first BIGINT NOT NULL,
        last BIGINT NOT NULL, every BIGINT NOT NULL, id BIGINT NOT NULL, count BIGINT NOT NULL,
        prev_hash TEXT NOT NULL, first_hash TEXT NOT NULL, last_hash TEXT NOT NULL, since_wall_ns BIGINT NOT NULL,
        until_wall_ns BIGINT NOT NULL, PRIMARY KEY (device, chain, stream, policy, first))""",
    """CREATE TABLE finding (
        id INTEGER PRIMARY KEY NOT NULL, device TEXT NOT NULL, chain TEXT NOT NULL, stream TEXT NOT NULL,
        seq BIGINT NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL, at_ns BIGINT NOT NULL)""",
    "ALTER TABLE latest ADD COLUMN chain TEXT NOT NULL DEFAULT ''",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
