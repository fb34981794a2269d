"""What devices send: Events, what is made of them, and what their chains tell.

device       where it stands, whether it is connected
event        every Event once, by (device, chain, stream, seq): `record` is its line, byte for byte, `id` the order of
             arrival and the cursor of the API; `time_ns` is when it happened as far as the cloud can tell (`times`),
             `wall_ns` what the device's clock said
decision     projection of the stream `decision`: one row for each of its Events, with the same `id`
stream_head  highest seq below which nothing is missing (`head`) and highest seq seen (`top`), repeats dropped
boot_clock   what ties the monotonic clock of one boot of a device to the time of day
tally        counters kept with each commit, so that the live page never counts rows
latest       the last Event of the kinds that tell a device's present state
rejection    messages that could not be taken; bounded
chain        each life of a device's outbox: its key, pinned at first sight, and its newest signed checkpoint
span         what was delivered, as intervals
shed         what the device gave up, as it has stated
pruned       what was delivered and is older than the store is to keep (`pruning`): from `first` to `last` records are gone,
             month by month
finding      what does not fit: a broken link of the hash chain, a key that changed
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, Table, Text, UniqueConstraint

from cloud.store.tables.base import ID, metadata

device = Table(
    "device",
    metadata,
    Column("device", Text, primary_key=True),
    Column("place", Text, nullable=False),
    Column("online", Boolean, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("first_seen_ns", BigInteger, nullable=False),
    Column("last_seen_ns", BigInteger, nullable=False),
)

event = Table(
    "event",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=False),
    Column("device", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("stream", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("mono_ns", BigInteger, nullable=False),
    Column("wall_ns", BigInteger, nullable=False),
    Column("wall_uncertainty_ns", BigInteger),
    Column("received_ns", BigInteger, nullable=False),
    Column("record", Text, nullable=False),
    Column("time_ns", BigInteger, nullable=False),
    Column("time_source", Text, nullable=False),
    UniqueConstraint("device", "chain", "stream", "seq"),
)

decision = Table(
    "decision",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=False),
    Column("device", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("part_epoch", BigInteger),
    Column("part_seq", BigInteger),
    Column("result", Integer),
    Column("score", Float),
    Column("label", Text),
    Column("reason", Text),
    Column("serial", BigInteger),
    Column("lot", BigInteger),
    Column("recipe", BigInteger),
    Column("latency_us", BigInteger),
    Column("bundle_digest", Text),
    Column("engine", Text),
    Column("variant", Text),
    Column("wall_ns", BigInteger, nullable=False),
    Column("received_ns", BigInteger, nullable=False),
)

stream_head = Table(
    "stream_head",
    metadata,
    Column("device", Text, primary_key=True),
    Column("chain", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("head", BigInteger, nullable=False),
    Column("top", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
)

boot_clock = Table(
    "boot_clock",
    metadata,
    Column("device", Text, primary_key=True),
    Column("boot_id", Text, primary_key=True),
    Column("offset_ns", BigInteger, nullable=False),
    Column("uncertainty_ns", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
)

tally = Table(
    "tally",
    metadata,
    Column("device", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

latest = Table(
    "latest",
    metadata,
    Column("device", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("wall_ns", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Column("chain", Text, nullable=False),
)

rejection = Table(
    "rejection",
    metadata,
    Column("id", ID, primary_key=True),
    Column("wall_ns", BigInteger, nullable=False),
    Column("topic", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
)

chain = Table(
    "chain",
    metadata,
    Column("device", Text, primary_key=True),
    Column("chain", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("first_seen_ns", BigInteger, nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("checkpoint", Text, nullable=False),
    Column("signature", Text, nullable=False),
)

span = Table(
    "span",
    metadata,
    Column("device", Text, primary_key=True),
    Column("chain", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("first", BigInteger, primary_key=True),
    Column("last", BigInteger, nullable=False),
)

shed = Table(
    "shed",
    metadata,
    Column("device", Text, primary_key=True),
    Column("chain", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("policy", Text, primary_key=True),
    Column("first", BigInteger, primary_key=True),
    Column("last", BigInteger, nullable=False),
    Column("every", BigInteger, nullable=False),
    Column("id", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("prev_hash", Text, nullable=False),
    Column("first_hash", Text, nullable=False),
    Column("last_hash", Text, nullable=False),
    Column("since_wall_ns", BigInteger, nullable=False),
    Column("until_wall_ns", BigInteger, nullable=False),
)

pruned = Table(
    "pruned",
    metadata,
    Column("device", Text, primary_key=True),
    Column("chain", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("month", BigInteger, primary_key=True),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("last_hash", Text, nullable=False),
    Column("since_ns", BigInteger, nullable=False),
    Column("until_ns", BigInteger, nullable=False),
)

finding = Table(
    "finding",
    metadata,
    Column("id", ID, primary_key=True),
    Column("device", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("stream", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
)
