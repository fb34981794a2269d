"""Restore a moment into a folder that is empty, and check what came out before anybody relies on it.

- The store and the files of that moment; of the registry the newest copy, because devices refuse metadata older than they have
  seen.
- Checked: the store opens, the audit log is whole against its signed checkpoints, the newest row is not younger than the moment.
- What was restored, and to which moment, becomes a row of the audit log itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import URL, Engine, select

from cloud.access.roles import Actor
from cloud.audit import checkpoint
from cloud.audit.log import newest, record_alone
from cloud.backup.copying import REGISTRY
from cloud.backup.postgres_copies import PostgresCopies
from cloud.backup.shelf import Kept, Shelf, oldest
from cloud.backup.sqlite_copies import SqliteCopies
from cloud.settings import CloudSettings, load_cloud
from cloud.sockets import listen, port_of
from cloud.store import tables as t
from cloud.store.opening import open_store, store_url
from cloud.store.postgres_server import as_user
from edge_runtime.durable import disk_errors
from edge_runtime.errors import DataError, UsageError
from edge_runtime.identity import load_or_make


class Restored(NamedTuple):
    """`moment_ns`: asked for, None: the newest. `copy_ns`: of the copy of a SQLite store. `newest_ns`: of the last row of the
    audit log. `findings`: what is wrong with that log."""

    folder: str
    store: str
    moment_ns: int | None
    copy_ns: int | None
    files: int
    audit_rows: int
    newest_ns: int
    findings: list[str]
    took_s: float


def restore(folder: Path, at_ns: int | None, into: Path, by: Actor) -> Restored:
    """DataError where the backup does not have that moment or is damaged; nothing that exists is overwritten."""
    with restored(folder, at_ns, into, by) as (found, _):
        return found


@contextmanager
def restored(folder: Path, at_ns: int | None, into: Path, by: Actor) -> Iterator[tuple[Restored, Engine]]:
    """The restored cloud with its store open; closed, and its server stopped, at the end."""
    began_s = time.monotonic()
    if not (folder / "files").is_dir():
        raise UsageError(f"{folder}: not a backup; expected the folder of gudgeon backup run --to")
    with disk_errors(into):
        into.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(into.iterdir()):
            raise UsageError(f"{into}: is not empty; restore into a new folder and move it when it is checked")
    config, kept = _files(folder, at_ns, into)
    settings = load_cloud(config)
    if (folder / "sqlite").is_dir():
        with _sqlite(folder, at_ns, into, settings) as (engine, copy_ns):
            kept = _with_its_anchor(folder, copy_ns, into, settings, kept)
            yield _checked(engine, settings, into, at_ns, copy_ns, kept, began_s, by), engine
    else:
        with _postgresql(folder, at_ns, into, settings) as engine:
            yield _checked(engine, settings, into, at_ns, None, kept, began_s, by), engine


def _files(folder: Path, at_ns: int | None, into: Path) -> tuple[Path, list[Kept]]:
    """The restored configuration, and all that was restored."""
    shelf = Shelf(folder)
    times = shelf.times()
    fits = [n for n in times if at_ns is None or n <= at_ns]
    if not fits:
        raise DataError(f"{folder}: no copy of the files is old enough; the oldest is {oldest(times)}")
    wanted = [k for k in shelf.list(fits[-1]) if k.group != REGISTRY]
    wanted += [k for k in shelf.list(times[-1]) if k.group == REGISTRY]
    places = [shelf.restore(kept, into) for kept in wanted]
    configs = [p for p in places if p.suffix == ".toml" and p.parent == into.resolve()]
    if len(configs) != 1:
        raise DataError(f"{folder}: expected one cloud.toml among the kept files, found {len(configs)}")
    return configs[0], wanted


def _with_its_anchor(folder: Path, copy_ns: int, into: Path, settings: CloudSettings, kept: list[Kept]) -> list[Kept]:
    """The newest checkpoint of the audit log goes with the copy of the store: one that was kept later, by a backup that was cut
    before it came to the store, tells of rows that are not in it."""
    shelf, copies = Shelf(folder), SqliteCopies(folder / "sqlite", time.time_ns)
    until_ns = max(copy_ns, copies.seen_ns()) if copy_ns == copies.times()[-1] else copy_ns
    lists = [n for n in shelf.times() if n <= until_ns]
    name = settings.anchor_file.name
    before = [k for k in (shelf.list(lists[-1]) if lists else []) if Path(k.path).name == name]
    now = [k for k in kept if Path(k.path).name == name]
    if before == now:
        return kept
    for wrong in now:
        (into / wrong.path).unlink()
    for right in before:
        shelf.restore(right, into)
    return [k for k in kept if k not in now] + before


@contextmanager
def _sqlite(folder: Path, at_ns: int | None, into: Path, settings: CloudSettings) -> Iterator[tuple[Engine, int]]:
    copies = SqliteCopies(folder / "sqlite", time.time_ns)
    place = Path(str(settings.store.address.database))
    if not place.is_relative_to(into.resolve()):
        place = into / "elsewhere" / place.name
    place.parent.mkdir(parents=True, exist_ok=True)
    copy_ns = copies.restore(at_ns, place)
    engine = open_store(URL.create("sqlite", database=str(place)))
    try:
        yield engine, copy_ns
    finally:
        engine.dispose()


@contextmanager
def _postgresql(folder: Path, at_ns: int | None, into: Path, settings: CloudSettings) -> Iterator[Engine]:
    url = store_url(settings.store.url)
    words = [k for k in into.rglob("*") if settings.store.password_file and k.name == settings.store.password_file.name]
    password = words[0].read_text().strip() if words else str(url.password or "")
    with listen("127.0.0.1", 0, "") as probe:
        port = port_of(probe)
    copies = PostgresCopies(folder / "postgresql", None, time.time_ns)
    place = into / "postgres"
    aside = into / "elsewhere" / "postgres"
    if place.exists():  # the password file of `gudgeon up` lies here
        aside.parent.mkdir(exist_ok=True)
        place.rename(aside)
    if as_user():
        into.chmod(0o711)  # another user must come through, not look around
    server = copies.restore(at_ns, place, password, port)
    try:
        engine = open_store(store_url(server.url(str(url.database)), password))
        try:
            yield engine
        finally:
            engine.dispose()
    finally:
        server.stop()


def _checked(
    engine: Engine,
    settings: CloudSettings,
    into: Path,
    at_ns: int | None,
    copy_ns: int | None,
    kept: list[Kept],
    began_s: float,
    by: Actor,
) -> Restored:
    places = {Path(k.path).name: into / k.path for k in kept}
    key = load_or_make(places.get(settings.store.key_file.name, settings.store.key_file))
    anchor = places.get(settings.anchor_file.name)
    report = checkpoint.look(engine, key.public_key(), anchor)
    findings = list(report.findings)
    with engine.connect() as connection:
        last = newest(connection)
        if at_ns is not None and last is not None:
            later = connection.execute(select(t.audit.c.seq).where(t.audit.c.at_ns > at_ns).limit(1)).scalar()
            if later is not None:
                findings.append(f"row {later} is younger than the moment that was asked for")
    told = {"moment_ns": at_ns, "copy_ns": copy_ns, "rows": report.rows}
    record_alone(engine, by, "backup.restore", str(into), detail=told)
    return Restored(
        str(into), engine.url.drivername.partition("+")[0], at_ns, copy_ns, len(kept), report.rows,
        last.at_ns if last else 0, findings, time.monotonic() - began_s,
    )  # fmt: skip
