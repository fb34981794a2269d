"""Open the store, of either kind.

SQLite       WAL, so that readers never wait for the writer, and synchronous FULL, because a device deletes what the cloud
             has acknowledged: what is committed must survive a power cut
PostgreSQL   `postgresql://user@host/name`; read through psycopg, written by each ingest worker through asyncpg
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, SQLAlchemyError

from cloud.store.database import WRITES
from cloud.store.migrations import migrate
from edge_runtime.errors import ConfigError, ResourceError

SQLITE = "sqlite:///"
POSTGRESQL = "postgresql"
PRAGMAS = (
    "journal_mode = WAL", "synchronous = FULL", "busy_timeout = 30000", "foreign_keys = ON",
    "cache_size = -16000",  # KiB: what a commit changes is written once
    "wal_autocheckpoint = 4000",  # pages: and moved into the file once for several commits
)  # fmt: skip


def store_url(url: str, password: str | None = None) -> URL:
    """The URL with the password in it; ValueError unless it names a store that we can use."""
    try:
        found = make_url(url)
    except ArgumentError:
        found = None
    if found is not None and found.drivername == "sqlite" and found.database not in (None, "", ":memory:"):
        return found
    if found is not None and found.drivername == POSTGRESQL and found.database:
        return found.set(password=password) if password else found
    raise ValueError("url: expected sqlite:///FILE or postgresql://USER@HOST:PORT/NAME")


def open_store(url: str | URL) -> Engine:
    """The engine of an up-to-date store; ResourceError if it cannot be used."""
    url = store_url(url) if isinstance(url, str) else url
    engine = _sqlite(url) if url.drivername == "sqlite" else _postgresql(url)
    try:
        migrate(engine)
    except DatabaseError as error:
        engine.dispose()
        shown = url.database if url.drivername == "sqlite" else url.render_as_string(hide_password=True)
        raise ResourceError(f"{shown}: cannot be used as the store: {error.orig}; {_advice(url)}") from error
    except (SQLAlchemyError, ResourceError):
        engine.dispose()
        raise
    return engine


def open_existing(url: URL) -> Engine:
    """The same for those who only read: a store that is not there is not made. ResourceError says so."""
    if url.drivername == "sqlite" and not os.path.exists(str(url.database)):
        raise ResourceError(
            f"{url.database}: there is no store yet; start gudgeon cloud first, or name another store.url"
        )
    return open_store(url)


def _sqlite(url: URL) -> Engine:
    with suppress(OSError):  # told when it is opened
        os.close(os.open(str(url.database), os.O_RDWR | os.O_CREAT, 0o600))  # hashes of passwords and tokens are in it
    engine = create_engine(url)
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _postgresql(url: URL) -> Engine:
    try:
        return create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise ConfigError(f"PostgreSQL needs {error.name}; run: pip install 'gudgeon[postgres]'") from error


def _advice(url: URL) -> str:
    if url.drivername == "sqlite":
        return "check folder, permission and free space, or name another file in store.url"
    return "check that the server runs, and user, password and name in store.url"


def _configure(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours, so that tables are made within a transaction, too
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    """Who will write takes the lock at once: a reader that turns writer may be refused."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(WRITES) else "BEGIN")
