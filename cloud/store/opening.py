"""Open the database: WAL, so that readers never wait for the writer, and synchronous FULL, because a device deletes what
the cloud has acknowledged: what is committed must survive a power cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from cloud.store.migrations import migrate
from edge_runtime.errors import ResourceError
from edge_runtime.identity import load_or_make

PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 5000", "foreign_keys = ON")


def open_store(url: str) -> Engine:
    """The engine of an up-to-date database; ResourceError if the file cannot be used."""
    engine = create_engine(url)
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    try:
        migrate(engine)
    except DatabaseError as error:
        engine.dispose()
        raise ResourceError(
            f"{engine.url.database}: cannot be used as the store: {error.orig}; "
            "check folder, permission and free space, or name another file in store.url"
        ) from error
    except (SQLAlchemyError, ResourceError):
        engine.dispose()
        raise
    return engine


def signing_key(engine: Engine) -> Ed25519PrivateKey:
    """The key that the cloud signs its statements with: a file beside the database, made at first use."""
    return load_or_make(Path(str(engine.url.database)).with_suffix(".key"))


def _configure(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours, so that tables are made within a transaction, too
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
