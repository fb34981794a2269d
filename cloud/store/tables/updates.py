"""What the fleet runs, is to run, and tries.

fleet               each device that asks for updates: hardware, floor, time zone; `told_ns` 0: was only named so far
fleet_tag           what people call devices by
fleet_slot          what a device told of each of its slot sets: installed, running and confirmed apart
fleet_history       what became of a device in its rollouts; a ring of rows for each device
assignment          what each device was last given: `content` without times, `message` as it was signed
rollout             what is asked of many devices, with its plan
rollout_clock       one row: when rollouts were last moved on, and the last time in which nobody did
rollout_group       the state of each of its groups
rollout_device      each device in it; `closed`: has nothing to say any more, because a newer rollout has the slot set
ddi_token           what a client of the DDI routes shows, hashed
ddi_action          what such a client was asked to install, and how it went
ddi_attribute       what such a client tells of itself
experiment          models side by side on cohorts of devices; `upto`: the last row of `decision` that was counted
experiment_tally    what each device decided with each arm's bundle
experiment_look     the least p of all looks, for each arm
experiment_outcome  what people found of parts
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, Table, Text

from cloud.store.tables.base import metadata

fleet = Table(
    "fleet",
    metadata,
    Column("device", Text, primary_key=True),
    Column("hardware", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("floor", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("first_seen_ns", BigInteger, nullable=False),
    Column("told_ns", BigInteger, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
    Column("changes", BigInteger, nullable=False),
)

fleet_tag = Table(
    "fleet_tag",
    metadata,
    Column("device", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

fleet_slot = Table(
    "fleet_slot",
    metadata,
    Column("device", Text, primary_key=True),
    Column("slot_set", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("installed", Text, nullable=False),
    Column("running", Text, nullable=False),
    Column("confirmed", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
)

fleet_history = Table(
    "fleet_history",
    metadata,
    Column("device", Text, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("slot_set", Text, nullable=False),
    Column("rollout", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
)

assignment = Table(
    "assignment",
    metadata,
    Column("device", Text, primary_key=True),
    Column("counter", BigInteger, nullable=False),
    Column("content", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("issued_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger, nullable=False),
)

rollout = Table(
    "rollout",
    metadata,
    Column("id", Text, primary_key=True),
    Column("slot_set", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("artifact", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("replaces", Text, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("started_ns", BigInteger, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
    Column("joined_ns", BigInteger, nullable=False),
)

rollout_clock = Table(
    "rollout_clock",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("ticked_ns", BigInteger, nullable=False),
    Column("resumed_ns", BigInteger, nullable=False),
    Column("gap_ns", BigInteger, nullable=False),
)

rollout_group = Table(
    "rollout_group",
    metadata,
    Column("rollout", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("since_ns", BigInteger, nullable=False),
)

rollout_device = Table(
    "rollout_device",
    metadata,
    Column("rollout", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("offered_ns", BigInteger, nullable=False),
    Column("deadline_ns", BigInteger, nullable=False),
    Column("next_ns", BigInteger, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("closed", Boolean, nullable=False),
)

ddi_token = Table(
    "ddi_token",
    metadata,
    Column("device", Text, primary_key=True),
    Column("hash", Text, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
)

ddi_action = Table(
    "ddi_action",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("device", Text, nullable=False, index=True),
    Column("target", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("sha1", Text, nullable=False),
    Column("md5", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("rollout", Text, nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("done", Integer, nullable=False),
    Column("of", Integer, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("updated_ns", BigInteger, nullable=False),
)

ddi_attribute = Table(
    "ddi_attribute",
    metadata,
    Column("device", Text, primary_key=True),
    Column("body", Text, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
)

experiment = Table(
    "experiment",
    metadata,
    Column("id", Text, primary_key=True),
    Column("plan", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("upto", BigInteger, nullable=False),
    Column("started_ns", BigInteger, nullable=False),
    Column("stopped_ns", BigInteger, nullable=False),
    Column("joined_ns", BigInteger, nullable=False),
)

experiment_tally = Table(
    "experiment_tally",
    metadata,
    Column("experiment", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("arm", Integer, primary_key=True),
    Column("parts", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
)

experiment_look = Table(
    "experiment_look",
    metadata,
    Column("experiment", Text, primary_key=True),
    Column("arm", Integer, primary_key=True),
    Column("p", Float, nullable=False),
    Column("looks", BigInteger, nullable=False),
)

experiment_outcome = Table(
    "experiment_outcome",
    metadata,
    Column("experiment", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("part_epoch", BigInteger, primary_key=True),
    Column("part_seq", BigInteger, primary_key=True),
    Column("value", Integer, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
)
