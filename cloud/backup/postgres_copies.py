"""Copies of a PostgreSQL store: base backups, and everything that was written since, as it is written.

`pg_receivewal` takes the log from the server through a replication slot, so that nothing is missing after a pause, and any
moment since the first base backup can be restored to the transaction (`recovery_target_time`). While nobody takes the log, the
server keeps it: set `max_slot_wal_keep_size`, or drop the slot `gudgeon_backup`, before a backup ends for good.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL

from cloud.backup.shelf import oldest
from cloud.store.postgres_server import SYSTEM_USER, PostgresServer, as_user, programs
from edge_runtime.child import end_with_parent
from edge_runtime.durable import disk_errors
from edge_runtime.errors import DataError, MissingExtraError, ResourceError

SLOT = "gudgeon_backup"
WAIT_S = 600.0
LOOK_S = 0.1
NOT_REACHED = "recovery ended before configured recovery target was reached"


class PostgresCopies:
    """`url` with the password, as the store has it."""

    def __init__(self, folder: Path, url: URL | None, now_ns: Callable[[], int]) -> None:
        bin_folder = programs()
        if bin_folder is None:
            raise MissingExtraError("PostgreSQL is not installed; install it with: apt-get install postgresql")
        self._bin, self._folder, self._url, self._now_ns = bin_folder, folder, url, now_ns
        self._bases, self._wal = folder / "base", folder / "wal"
        self._receiver: subprocess.Popen[bytes] | None = None

    def times(self) -> list[int]:
        """Of the base backups, the oldest first."""
        return sorted(int(p.name) for p in self._bases.glob("*") if p.name.isdecimal()) if self._bases.exists() else []

    def start(self) -> None:
        """Begin to take the log."""
        with disk_errors(self._folder):
            for folder in (self._bases, self._wal):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._run("pg_receivewal", "--create-slot", "--if-not-exists", f"--slot={SLOT}")
        words = (
            str(self._bin / "pg_receivewal"),
            *self._where(),
            f"--slot={SLOT}",
            "--synchronous",
            "-D",
            str(self._wal),
        )
        with (self._folder / "log").open("ab") as log:
            self._receiver = subprocess.Popen(  # in a session of its own: a Ctrl-C is for us, and we end it
                words, env=self._env(), stdout=log, stderr=log, start_new_session=True, preexec_fn=end_with_parent
            )

    @property
    def alive(self) -> bool:
        return self._receiver is not None and self._receiver.poll() is None

    def stop(self) -> None:
        if self._receiver is not None:
            self._receiver.terminate()
            self._receiver.wait(30)
            self._receiver = None

    def base(self) -> int:
        """A base backup; the time when it was complete."""
        temporary = self._bases / f".{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        self._run("pg_basebackup", "-D", str(temporary), "-X", "none", "--checkpoint=fast")
        at_ns = self._now_ns()
        temporary.rename(self._bases / f"{at_ns:020d}")
        return at_ns

    def flush(self) -> None:
        """Wait until the log so far is here."""
        assert self._url is not None
        with psycopg.connect(make_conninfo(**self._words()), autocommit=True) as connection:
            row = connection.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
            asked = "SELECT flush_lsn >= %s::pg_lsn FROM pg_stat_replication WHERE application_name = 'pg_receivewal'"
            deadline = time.monotonic() + WAIT_S
            while (found := connection.execute(asked, row).fetchone()) is None or not found[0]:
                if time.monotonic() > deadline or not self.alive:
                    raise ResourceError(f"pg_receivewal does not keep up; see {self._folder / 'log'}")
                time.sleep(LOOK_S)

    def restore(self, at_ns: int | None, into: Path, password: str, port: int) -> PostgresServer:
        """A server of its own in the folder `into` that holds the store as it was; it runs, and is the caller's to stop."""
        fits = [n for n in self.times() if at_ns is None or n <= at_ns]
        if not fits:
            raise DataError(f"{self._bases}: no base backup is old enough; the oldest is {oldest(self.times())}")
        source = self._bases / f"{fits[-1]:020d}"
        self._verify(source)
        data, log = into / "data", into / "wal"
        with disk_errors(into):
            into.mkdir(parents=True)
            into.chmod(0o755 if as_user() else 0o700)
            shutil.copytree(source, data)
            shutil.copytree(self._wal, log, ignore=_older_than(source))
            server = PostgresServer(into, port)
            server.password_file.touch(0o600)
            server.password_file.write_text(password + "\n")
            data.chmod(0o700)
        targets = [] if at_ns is None else [f"recovery_target_time = '{_pg_time(at_ns)}'"]
        self._recover(server, data, log, targets)
        if not server.alive and targets and NOT_REACHED in _tail(into / "log"):
            self._recover(server, data, log, [])  # nothing was committed after that moment: all of it is wanted
        if not server.alive:
            raise ResourceError(f"PostgreSQL did not recover; see {into / 'log'}: {_tail(into / 'log')[-300:]}")
        return server

    def _recover(self, server: PostgresServer, data: Path, log: Path, targets: list[str]) -> None:
        lines = [
            f'restore_command = \'cp "{log}/%f" "%p" || cp "{log}/%f.partial" "%p"\'',
            "recovery_target_action = 'promote'",
            *targets,
        ]
        kept = [
            line
            for line in (data / "postgresql.auto.conf").read_text().splitlines()
            if not line.startswith(("restore_command", "recovery_target"))
        ]
        (data / "postgresql.auto.conf").write_text("\n".join([*kept, *lines]) + "\n")
        (data / "recovery.signal").touch()
        if as_user():
            for path in (data, log, server.password_file):
                subprocess.run(["chown", "-R", SYSTEM_USER, str(path)], check=True)
        try:
            server.start()
            _until_promoted(server)
        except ResourceError:
            if server.alive:
                server.stop()
                raise

    def _verify(self, base: Path) -> None:
        made = subprocess.run(
            [str(self._bin / "pg_verifybackup"), "--no-parse-wal", "--quiet", str(base)],
            capture_output=True,
            check=False,
        )
        if made.returncode:
            told = made.stderr.decode(errors="replace").strip().splitlines()
            raise DataError(
                f"{base}: damaged: {told[0] if told else 'pg_verifybackup refuses it'}; restore another moment"
            )

    def prune(self, before_ns: int) -> int:
        """Delete base backups and log that are not needed for any moment from `before_ns` on; how many base backups."""
        needed = max((n for n in self.times() if n <= before_ns), default=0)
        gone = [n for n in self.times() if n < needed]
        for n in gone:
            shutil.rmtree(self._bases / f"{n:020d}")
        if gone:
            too_old = _older_than(self._bases / f"{needed:020d}")
            for name in too_old(str(self._wal), os.listdir(self._wal)):
                (self._wal / name).unlink()
        return len(gone)

    def _run(self, program: str, *words: str) -> None:
        command = [str(self._bin / program), *self._where(), *words]
        made = subprocess.run(command, env=self._env(), capture_output=True, check=False)
        if made.returncode:
            reason = made.stderr.decode(errors="replace").strip().splitlines()
            told = reason[-1] if reason else str(made.returncode)
            raise ResourceError(f"{program}: {told}; the user of store.url needs the right REPLICATION")

    def _where(self) -> tuple[str, ...]:
        words = self._words()
        return (f"--host={words['host']}", f"--port={words['port']}", f"--username={words['user']}", "--no-password")

    def _words(self) -> dict[str, str]:
        url = self._url
        assert url is not None
        return {
            "host": url.host or "127.0.0.1", "port": str(url.port or 5432), "user": url.username or "",
            "password": str(url.password or ""), "dbname": str(url.database),
        }  # fmt: skip

    def _env(self) -> dict[str, str]:
        return os.environ | {"PGPASSWORD": self._words()["password"]}


def _older_than(base: Path) -> Callable[[str, list[str]], list[str]]:
    """Names of the log that this base backup does not need, as `copytree` wants them."""
    label = (base / "backup_label").read_text()
    first = label.partition("(file ")[2].partition(")")[0]
    if len(first) != 24:
        raise DataError(f"{base / 'backup_label'}: names no first file of the log; restore another moment")
    return lambda _, names: [n for n in names if len(n.partition(".")[0]) == 24 and n[:24] < first]


def _until_promoted(server: PostgresServer) -> None:
    deadline = time.monotonic() + WAIT_S
    while server.alive:
        try:
            with psycopg.connect(server.url(), password=server.password, connect_timeout=5) as connection:
                if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,):
                    return
        except psycopg.OperationalError:
            pass
        if time.monotonic() > deadline:
            raise ResourceError("PostgreSQL did not end its recovery")
        time.sleep(LOOK_S)


def _pg_time(at_ns: int) -> str:
    whole = datetime.fromtimestamp(at_ns // 10**9, UTC) + timedelta(microseconds=at_ns % 10**9 // 1000)
    return whole.strftime("%Y-%m-%d %H:%M:%S.%f+00")


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-4000:] if path.exists() else ""
