"""What is asked of devices and of their assets, and what they say.

desired   what each device is asked to be; `message` is the signed payload that goes out
reported  what each device says that it is
command   what each device is asked to do; `ended` is the kind of the Event that told its end
asset     the newest that devices tell of each asset: its state, and drift by model (`assets`)
alarm     the state of each alarm after its newest change
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Integer, Table, Text, UniqueConstraint

from cloud.store.tables.base import metadata

desired = Table(
    "desired",
    metadata,
    Column("device", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("issued_ns", BigInteger, nullable=False),
    Column("message", Text, nullable=False),
)

reported = Table(
    "reported",
    metadata,
    Column("device", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("refused_version", BigInteger),
    Column("refused_reason", Text),
    Column("at_ns", BigInteger, nullable=False),
)

command = Table(
    "command",
    metadata,
    Column("id", Text, primary_key=True),
    Column("device", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("args", Text, nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("issued_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger, nullable=False),
    Column("message", Text, nullable=False),
    Column("accepted_ns", BigInteger),
    Column("ended", Text),
    Column("reason", Text),
    Column("ended_ns", BigInteger),
    UniqueConstraint("device", "counter"),
)

asset = Table(
    "asset",
    metadata,
    Column("device", Text, primary_key=True),
    Column("asset", Text, primary_key=True),
    Column("part", Text, primary_key=True),
    Column("chain", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("wall_ns", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)

alarm = Table(
    "alarm",
    metadata,
    Column("device", Text, primary_key=True),
    Column("alarm", Text, primary_key=True),
    Column("asset", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("severity", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("raised_wall_ns", BigInteger, nullable=False),
    Column("wall_ns", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)
