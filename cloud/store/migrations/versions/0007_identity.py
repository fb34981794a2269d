"""Who a device is: its hardware, its enrolment tokens and its certificates."""

from __future__ import annotations

from alembic import op

revision, down_revision = "0007", "0006"

STATEMENTS = (
    """CREATE TABLE identity (
        device TEXT PRIMARY KEY NOT NULL, hardware TEXT NOT NULL, revoked_ns BIGINT, reason TEXT,
        since_ns BIGINT NOT NULL)""",
    """CREATE TABLE enrolment_token (
        id TEXT PRIMARY KEY NOT NULL, device TEXT NOT NULL, hardware TEXT NOT NULL, hash TEXT NOT NULL,
        made_ns BIGINT NOT NULL, expires_ns BIGINT NOT NULL, failures BIGINT NOT NULL, used_ns BIGINT, public_key TEXT,
        withdrawn_ns BIGINT)""",
    "CREATE INDEX enrolment_token_device ON enrolment_token (device)",
    """CREATE TABLE certificate (
        serial TEXT PRIMARY KEY NOT NULL, device TEXT NOT NULL, public_key TEXT NOT NULL, issuer TEXT NOT NULL,
        issued_ns BIGINT NOT NULL, not_before_ns BIGINT NOT NULL, not_after_ns BIGINT NOT NULL, revoked_ns BIGINT,
        reason TEXT, pem TEXT NOT NULL, chain TEXT NOT NULL)""",
    "CREATE INDEX certificate_device ON certificate (device, not_after_ns)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
