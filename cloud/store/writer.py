"""The one who writes: an ingest worker has a Writer of its own. `commit` returns when everything is on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import URL, Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from cloud.messages import Batch, Item
from cloud.store.database import WRITES
from cloud.store.partitions import Month, make_partitions, months_of
from cloud.store.writing import Acks, commit, store

CONNECT_S, COMMAND_S = 10.0, 60.0
#: ingest looks up few rows of large tables; statistics that lag behind a growing table must not make it read all of them
BY_INDEX = dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"), "off")


class Writer(Protocol):
    def commit(self, items: Sequence[Item], now_ns: int) -> Acks: ...
    def close(self) -> None: ...


def open_writer(engine: Engine) -> Writer:
    """For a store that is up to date (`open_store`)."""
    return SqliteWriter(engine) if engine.dialect.name == "sqlite" else PostgresWriter(engine.url)


class SqliteWriter:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(**{WRITES: True})

    def commit(self, items: Sequence[Item], now_ns: int) -> Acks:
        return commit(self._engine, items, now_ns)

    def close(self) -> None:
        pass  # the engine is its owner's


class PostgresWriter:
    """One connection through asyncpg, whose COPY is the quickest way in; used by one thread."""

    def __init__(self, url: URL) -> None:
        self._loop = asyncio.new_event_loop()
        self._engine: AsyncEngine = create_async_engine(
            url.set(drivername="postgresql+asyncpg"),
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args={"timeout": CONNECT_S, "command_timeout": COMMAND_S, "server_settings": BY_INDEX},
        )
        self._months: set[Month] = set()

    def commit(self, items: Sequence[Item], now_ns: int) -> Acks:
        return self._loop.run_until_complete(self._commit(items, now_ns))

    async def _commit(self, items: Sequence[Item], now_ns: int) -> Acks:
        await self._make_months(items)
        try:
            return await self._store(items, now_ns)
        except IntegrityError:  # the table of a month was old and empty, and was dropped (`pruning`)
            self._months.clear()
            await self._make_months(items)
            return await self._store(items, now_ns)

    async def _make_months(self, items: Sequence[Item]) -> None:
        events = [e for item in items if isinstance(item, Batch) for e in item.events]
        missing = months_of(e.wall_ns for e in events) - self._months
        if missing:
            async with self._engine.begin() as connection:
                await connection.run_sync(make_partitions, missing)
            self._months |= missing

    async def _store(self, items: Sequence[Item], now_ns: int) -> Acks:
        async with self._engine.begin() as connection:
            return await connection.run_sync(store, items, now_ns)

    def close(self) -> None:
        self._loop.run_until_complete(self._engine.dispose())
        self._loop.close()
