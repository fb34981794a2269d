"""The schema, in numbered Alembic revisions (`versions/`). A revision that was released never changes; a new one is added.

All that are missing run in one transaction with the new revision number, so that a power cut leaves the old schema or the
new one. A store that a newer Gudgeon made is refused. Workers that start together wait for one another.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, inspect, text

from cloud.store.database import WRITES, is_postgresql
from edge_runtime.errors import ResourceError

HERE = Path(__file__).parent
LOCK = 0x67756467656F6E  # of PostgreSQL, held by the worker that migrates


def config(connection: Connection | None = None, folder: Path = HERE) -> Config:
    found = Config()
    found.set_main_option("script_location", str(folder).replace("%", "%%"))
    found.attributes["connection"] = connection
    return found


def newest(folder: Path = HERE) -> str:
    return str(ScriptDirectory.from_config(config(folder=folder)).get_current_head())


def current(connection: Connection) -> str | None:
    """The revision of a store; None where it is empty."""
    return MigrationContext.configure(connection).get_current_revision()


def migrate(engine: Engine, folder: Path = HERE) -> str:
    """Bring a store to the newest revision and return it. ResourceError if it is newer than this program."""
    with engine.connect() as connection:
        if current(connection) == newest(folder):
            return newest(folder)
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        if is_postgresql(connection):
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        try:
            _adopt(connection, folder)
            command.upgrade(config(connection, folder), "head")
        except CommandError as error:
            raise ResourceError(f"{_name(engine)}: {error}; a newer Gudgeon made this store: update Gudgeon") from error
    return newest(folder)


def _adopt(connection: Connection, folder: Path) -> None:
    """A store of before the revisions tells its schema in a table of its own."""
    if current(connection) is None and inspect(connection).has_table("schema_version"):
        number = int(connection.execute(text("SELECT version FROM schema_version")).scalar_one())
        command.stamp(config(connection, folder), f"{number:04d}")


def _name(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=True)
