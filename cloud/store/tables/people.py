"""Who may do what, and what was done.

operator          who may sign in or has tokens (`cloud.access`); never deleted, so that a name means one person for ever
token             API tokens by their public half; of the secret half only a hash is here
session           who is signed in, by the hash of the cookie
audit             what was done, by whom: a hash chain (`cloud.audit`)
audit_checkpoint  how long that chain was, signed
audit_archive     up to which row that chain was put into files, signed
attempt           how many tries are left of sign-ins and enrolments: of one address, of one name, of all
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Table, Text

from cloud.store.tables.base import metadata

operator = Table(
    "operator",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("password_hash", Text),
    Column("disabled", Boolean, nullable=False),
    Column("made_ns", BigInteger, nullable=False),
)

token = Table(
    "token",
    metadata,
    Column("id", Text, primary_key=True),
    Column("operator", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("made_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger, nullable=False),
    Column("revoked_ns", BigInteger),
)

session = Table(
    "session",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("made_ns", BigInteger, nullable=False),
    Column("seen_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("prev", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

audit_checkpoint = Table(
    "audit_checkpoint",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("message", Text, nullable=False),
)

audit_archive = Table(
    "audit_archive",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("file", Text, nullable=False),
    Column("message", Text, nullable=False),
)

attempt = Table(
    "attempt",
    metadata,
    Column("name", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("tokens", Float, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
)
