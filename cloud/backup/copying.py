"""Take copies of a cloud: its files first, then its store, so that no signed checkpoint is ever younger than the store beside
it."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from cloud.backup.postgres_copies import PostgresCopies
from cloud.backup.shelf import Shelf, Source
from cloud.backup.sqlite_copies import SqliteCopies
from cloud.settings import CloudSettings
from edge_runtime.clock import Clock
from edge_runtime.durable import disk_errors
from edge_runtime.errors import ResourceError

DAY_NS = 86_400 * 1_000_000_000
REGISTRY = "registry"


class Copied(NamedTuple):
    """`store_ns`: the time of a new copy of the store, if there is one."""

    files: bool
    store_ns: int | None


class Store(Protocol):
    """The store of one kind, as `Copying` wants it."""

    def start(self) -> None: ...
    def copy(self) -> int | None: ...
    def prune(self, before_ns: int) -> int: ...
    def stop(self) -> None: ...


class SqliteStore:
    def __init__(self, copies: SqliteCopies, database: Path) -> None:
        self._copies, self._database = copies, database

    def start(self) -> None:
        if not self._database.exists():
            raise ResourceError(f"{self._database}: there is no store yet; start gudgeon cloud first")

    def copy(self) -> int | None:
        return self._copies.copy(self._database)

    def prune(self, before_ns: int) -> int:
        return self._copies.prune(before_ns)

    def stop(self) -> None:
        pass


class PostgresStore:
    """The log flows all the time; a base backup is made once a day."""

    def __init__(self, copies: PostgresCopies, clock: Clock) -> None:
        self._copies, self._clock = copies, clock

    def start(self) -> None:
        self._copies.start()

    def copy(self) -> int | None:
        if not self._copies.alive:
            self._copies.start()
        made = None
        if self._clock.wall_ns() - max(self._copies.times(), default=0) >= DAY_NS:
            made = self._copies.base()
        self._copies.flush()
        return made

    def prune(self, before_ns: int) -> int:
        return self._copies.prune(before_ns)

    def stop(self) -> None:
        self._copies.stop()


class Copying:
    def __init__(self, settings: CloudSettings, config: Path, folder: Path, clock: Clock) -> None:
        self._sources = sources(settings, config)
        self._clock, self._folder = clock, folder
        self._shelf = Shelf(folder)
        self.store = store_of(settings, folder, clock)

    def start(self) -> None:
        self._shelf.prepare()
        self.store.start()

    def once(self) -> Copied:
        new = self._shelf.keep(self._sources, self._clock.wall_ns())
        return Copied(new, self.store.copy())

    def run(self, every_s: float, keep_days: float, stop: threading.Event) -> Iterator[Copied]:
        """What was copied, each time, until `stop`."""
        while True:
            yield self.once()
            self.store.prune(self._clock.wall_ns() - round(keep_days * DAY_NS))
            if stop.wait(every_s):
                return


def store_of(settings: CloudSettings, folder: Path, clock: Clock) -> Store:
    url = settings.store.address
    if url.drivername == "sqlite":
        return SqliteStore(SqliteCopies(folder / "sqlite", clock.wall_ns), Path(str(url.database)))
    return PostgresStore(PostgresCopies(folder / "postgresql", url, clock.wall_ns), clock)


def sources(settings: CloudSettings, config: Path) -> list[Source]:
    """Every file that a cloud needs beside its store, under the name that it is restored as: where it lies below the
    configuration, the same one."""
    home = config.parent.resolve()
    store, http = settings.store, settings.http
    files = [config, store.key_file, settings.token_file, settings.anchor_file, store.password_file]
    files += [http.cert_file, http.key_file, settings.oidc.client_secret_file]
    files += [settings.ca_folder, settings.ca.root_file, settings.ca.key_file]
    broker = settings.broker
    files += [broker.ca_file, broker.cert_file, broker.key_file, broker.password_file]
    found = [
        Source(p.resolve(), name_of(p.resolve(), home)) for p in dict.fromkeys(files) if p is not None and p != Path()
    ]
    if settings.registry.folder is not None:
        place = settings.registry.folder.resolve()
        found.append(Source(place, name_of(place, home), REGISTRY))
    return found


def name_of(place: Path, home: Path) -> str:
    if place.is_relative_to(home):
        return place.relative_to(home).as_posix()
    return "elsewhere/" + place.as_posix().lstrip("/")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """ResourceError where another process takes copies into this folder."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ResourceError(
                    f"{folder}: gudgeon backup runs with this folder already; wait, or stop it"
                ) from error
            yield
