"""Rollouts: the fleet as it tells of its updates, what each device is given, and the rollouts that decide it."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0009", "0007"

STATEMENTS = (
    """CREATE TABLE fleet (
        device TEXT PRIMARY KEY NOT NULL, hardware TEXT NOT NULL, boot_id TEXT NOT NULL, floor TEXT NOT NULL,
        zone TEXT NOT NULL, first_seen_ns BIGINT NOT NULL, told_ns BIGINT NOT NULL, changed_ns BIGINT NOT NULL,
        changes BIGINT NOT NULL)""",
    "CREATE INDEX fleet_changed ON fleet (changed_ns)",
    """CREATE TABLE fleet_tag (
        device TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (device, name))""",
    """CREATE TABLE fleet_slot (
        device TEXT NOT NULL, slot_set TEXT NOT NULL, state TEXT NOT NULL, target TEXT NOT NULL, sha256 TEXT NOT NULL,
        installed TEXT NOT NULL, running TEXT NOT NULL, confirmed TEXT NOT NULL, body TEXT NOT NULL,
        changed_ns BIGINT NOT NULL, PRIMARY KEY (device, slot_set))""",
    """CREATE TABLE fleet_history (
        device TEXT NOT NULL, place INTEGER NOT NULL, number BIGINT NOT NULL, at_ns BIGINT NOT NULL,
        slot_set TEXT NOT NULL, rollout TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
        PRIMARY KEY (device, place))""",
    """CREATE TABLE assignment (
        device TEXT PRIMARY KEY NOT NULL, counter BIGINT NOT NULL, content TEXT NOT NULL, message TEXT NOT NULL,
        issued_ns BIGINT NOT NULL, expires_ns BIGINT NOT NULL)""",
    """CREATE TABLE rollout (
        id TEXT PRIMARY KEY NOT NULL, slot_set TEXT NOT NULL, target TEXT NOT NULL, sha256 TEXT NOT NULL,
        artifact TEXT NOT NULL, plan TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, created_by TEXT NOT NULL,
        approved_by TEXT NOT NULL, replaces TEXT NOT NULL, created_ns BIGINT NOT NULL, started_ns BIGINT NOT NULL,
        changed_ns BIGINT NOT NULL, joined_ns BIGINT NOT NULL)""",
    """CREATE TABLE rollout_group (
        rollout TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, since_ns BIGINT NOT NULL,
        PRIMARY KEY (rollout, number))""",
    """CREATE TABLE rollout_device (
        rollout TEXT NOT NULL, device TEXT NOT NULL, number INTEGER NOT NULL, state TEXT NOT NULL, tries INTEGER NOT NULL,
        counter BIGINT NOT NULL, offered_ns BIGINT NOT NULL, deadline_ns BIGINT NOT NULL, next_ns BIGINT NOT NULL,
        changed_ns BIGINT NOT NULL, reason TEXT NOT NULL, closed BOOLEAN NOT NULL, PRIMARY KEY (rollout, device))""",
    "CREATE INDEX rollout_device_counts ON rollout_device (rollout, state, number)",
    "CREATE INDEX rollout_device_open ON rollout_device (device, closed)",
    """CREATE INDEX rollout_device_deadline ON rollout_device (rollout, deadline_ns)
        WHERE state IN ('offered', 'working')""",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
