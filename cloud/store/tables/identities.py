"""Which devices may have a certificate, and which they have.

identity         each device that may have a certificate, and the hardware that it is bound to (`cloud.enrol`)
enrolment_token  hashes of one-time tokens, and the public key that one was used for
certificate      every certificate that a device was given; `public_key` is the SHA-256 of its key
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Table, Text

from cloud.store.tables.base import metadata

identity = Table(
    "identity",
    metadata,
    Column("device", Text, primary_key=True),
    Column("hardware", Text, nullable=False),
    Column("revoked_ns", BigInteger),
    Column("reason", Text),
    Column("since_ns", BigInteger, nullable=False),
)

enrolment_token = Table(
    "enrolment_token",
    metadata,
    Column("id", Text, primary_key=True),
    Column("device", Text, nullable=False),
    Column("hardware", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("made_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("used_ns", BigInteger),
    Column("public_key", Text),
    Column("withdrawn_ns", BigInteger),
)

certificate = Table(
    "certificate",
    metadata,
    Column("serial", Text, primary_key=True),
    Column("device", Text, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("issued_ns", BigInteger, nullable=False),
    Column("not_before_ns", BigInteger, nullable=False),
    Column("not_after_ns", BigInteger, nullable=False),
    Column("revoked_ns", BigInteger),
    Column("reason", Text),
    Column("pem", Text, nullable=False),
    Column("chain", Text, nullable=False),
)
