"""The tables as SQLAlchemy sees them; `migrations/` makes them, and a test compares the two on both databases.

event         every Event once, by (device, chain, stream, seq): `record` is its line, byte for byte, `id` the order of
              arrival and the cursor of the API; `time_ns` is when it happened as far as the cloud can tell (`times`),
              `wall_ns` what the device's clock said
decision      projection of the stream `decision`: one row for each of its Events, with the same `id`
boot_clock    what ties the monotonic clock of one boot of a device to the time of day
stream_head   highest seq below which nothing is missing (`head`) and highest seq seen (`top`), repeats dropped
chain         each life of a device's outbox: its key, pinned at first sight, and its newest signed checkpoint
span          what was delivered, as intervals
shed          what the device gave up, as it has stated
pruned        what was delivered and is older than the store is to keep (`pruning`): from `first` to `last` records are gone,
              month by month
desired       what each device is asked to be; `message` is the signed payload that goes out
reported      what each device says that it is
command       what each device is asked to do; `ended` is the kind of the Event that told its end
finding       what does not fit: a broken link of the hash chain, a key that changed
tally         counters kept with each commit, so that the live page never counts rows
latest        the last Event of the kinds that tell a device's present state
asset         the newest that devices tell of each asset: its state, and drift by model (`assets`)
alarm         the state of each alarm after its newest change
device        where it stands, whether it is connected
rejection     messages that could not be taken; bounded
operator      who may sign in or has tokens (`cloud.access`); never deleted, so that a name means one person for ever
token         API tokens by their public half; of the secret half only a hash is here
session       who is signed in, by the hash of the cookie
audit         what was done, by whom: a hash chain (`cloud.audit`)
audit_checkpoint  how long that chain was, signed
audit_archive  up to which row that chain was put into files, signed
attempt       how many tries are left of sign-ins and enrolments: of one address, of one name, of all
identity      each device that may have a certificate, and the hardware that it is bound to (`cloud.enrol`)
enrolment_token  hashes of one-time tokens, and the public key that one was used for
certificate   every certificate that a device was given; `public_key` is the SHA-256 of its key
fleet         each device that asks for updates: hardware, floor, time zone; `told_ns` 0: was only named so far
fleet_tag     what people call devices by
fleet_slot    what a device told of each of its slot sets: installed, running and confirmed apart
fleet_history what became of a device in its rollouts; a ring of rows for each device
assignment    what each device was last given: `content` without times, `message` as it was signed
rollout       what is asked of many devices, with its plan
rollout_clock  one row: when rollouts were last moved on, and the last time in which nobody did
rollout_group the state of each of its groups
rollout_device each device in it; `closed`: has nothing to say any more, because a newer rollout has the slot set
ddi_token     what a client of the DDI routes shows, hashed
ddi_action    what such a client was asked to install, and how it went
ddi_attribute  what such a client tells of itself
experiment    models side by side on cohorts of devices; `upto`: the last row of `decision` that was counted
experiment_tally  what each device decided with each arm's bundle
experiment_look   the least p of all looks, for each arm
experiment_outcome  what people found of parts
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, MetaData, Table, Text, UniqueConstraint

metadata = MetaData()
ID = BigInteger().with_variant(Integer, "sqlite")

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
