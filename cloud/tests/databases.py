"""Empty stores for the tests: SQLite in a file, and PostgreSQL on a server that one test run shares."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import psycopg
import pytest
from sqlalchemy import Engine, create_engine

from cloud.messages import Item
from cloud.sockets import listen, port_of
from cloud.store.opening import open_store, store_url
from cloud.store.postgres_server import CARELESS, PostgresServer, programs
from cloud.store.writer import Writer, open_writer
from cloud.store.writing import Acks

KINDS = ("sqlite", "postgresql")
MADE = "made"  # a database with the schema, which the others are copied from
SHAPE = "SELECT count(*), max(version_num) FROM pg_class, alembic_version"
OTHERS = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
DELETES = """SELECT string_agg(format('DELETE FROM %I', tablename), ';') FROM pg_tables
  WHERE schemaname = 'public' AND tablename <> 'alembic_version'"""
RESTARTS = """SELECT setval(format('%I', sequencename)::regclass, start_value, false) FROM pg_sequences
  WHERE schemaname = 'public'"""

numbers = itertools.count(1)
emptied: list[str] = []
writers: WeakKeyDictionary[Engine, Writer] = WeakKeyDictionary()


@functools.cache
def server() -> PostgresServer:
    folder = Path(tempfile.mkdtemp(prefix="gudgeon-postgres-"))
    folder.chmod(0o755)
    with listen("127.0.0.1", 0, "") as probe:
        port = port_of(probe)
    started = PostgresServer(folder / "server", port, CARELESS)
    started.start()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(started.stop)
    open_store(store_url(started.create(MADE), started.password)).dispose()
    return started


@functools.cache
def sqlite_made() -> Path:
    """An empty store with the schema, which the others are copied from."""
    folder = Path(tempfile.mkdtemp(prefix="gudgeon-sqlite-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    open_store(f"sqlite:///{folder / MADE}").dispose()
    return folder / MADE


@contextmanager
def empty_store(kind: str, folder: Path) -> Iterator[Engine]:
    if kind == "sqlite":
        if not (folder / "cloud.db").exists():
            shutil.copyfile(sqlite_made(), folder / "cloud.db")
        engine = open_store(f"sqlite:///{folder / 'cloud.db'}")
    else:
        if programs() is None:
            pytest.skip("needs PostgreSQL: apt-get install postgresql")
        name = emptied.pop() if emptied else create()
        url = store_url(server().url(name), server().password)
        engine = create_engine(url.set(drivername="postgresql+psycopg"))
    yield engine
    if engine in writers:
        writers.pop(engine).close()
    engine.dispose()
    if kind == "postgresql" and empty(name):
        emptied.append(name)


def create() -> str:
    name = f"test_{os.getpid()}_{next(numbers)}"
    with psycopg.connect(server().url(), password=server().password, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {MADE}")
    return name


def empty(name: str) -> bool:
    """The database as it was made, for the next test, which is far cheaper than another; False if it cannot be."""
    try:
        with psycopg.connect(server().url(name), password=server().password) as connection:
            connection.execute("SET lock_timeout = '1s'; SET session_replication_role = replica")
            if connection.execute(SHAPE).fetchone() != shape() or connection.execute(OTHERS).fetchone():
                return False
            (deletes,) = connection.execute(DELETES).fetchone() or ("",)
            connection.execute(deletes)
            connection.execute(RESTARTS)
    except psycopg.Error:
        return False
    return True


@functools.cache
def shape() -> tuple[object, ...] | None:
    with psycopg.connect(server().url(MADE), password=server().password) as connection:
        return connection.execute(SHAPE).fetchone()


def writer_of(engine: Engine) -> Writer:
    if engine not in writers:
        writers[engine] = open_writer(engine)
    return writers[engine]


def commit(engine: Engine, items: Sequence[Item], now_ns: int) -> Acks:
    return writer_of(engine).commit(items, now_ns)
