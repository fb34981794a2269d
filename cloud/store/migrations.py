"""Numbered migrations, one table. A number that was released never changes; a new one is added below it.

Each runs in one transaction with the new schema version, so that a power cut leaves the old schema or the new one.
A file that a newer Gudgeon made is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, Engine, inspect, text

from edge_runtime.errors import ResourceError

MIGRATIONS: Mapping[int, Sequence[str]] = {
    1: (
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
    ),
    2: (  # records in hash chains; what came before has the chain "", and a record line without a hash
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
    ),
}


def version(connection: Connection) -> int:
    """The schema version of the file; 0 when it is empty."""
    if not inspect(connection).has_table("schema_version"):
        return 0
    return int(connection.execute(text("SELECT version FROM schema_version")).scalar_one())


def migrate(engine: Engine, migrations: Mapping[int, Sequence[str]] = MIGRATIONS) -> int:
    """Bring the file to the newest version and return it. ResourceError if it is newer than this program."""
    with engine.connect() as connection:
        found = version(connection)
    newest = max(migrations)
    if found > newest:
        raise ResourceError(
            f"{engine.url.database}: schema version {found} is newer than this Gudgeon knows ({newest}); update Gudgeon"
        )
    for number in sorted(n for n in migrations if n > found):
        with engine.begin() as connection:
            for statement in migrations[number]:
                connection.execute(text(statement))
            _set_version(connection, number)
    return newest


def _set_version(connection: Connection, number: int) -> None:
    connection.execute(text("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)"))
    connection.execute(text("DELETE FROM schema_version"))
    connection.execute(text("INSERT INTO schema_version (version) VALUES (:number)"), {"number": number})
