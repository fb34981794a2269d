"""A PostgreSQL server of our own, on this machine: its data in a folder, its door a port on loopback.

The server refuses to run as root; started by root it runs as the user `postgres` that its package makes. Its one user
signs in with a password that is made with the folder.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg

from edge_runtime.child import end_with_parent
from edge_runtime.durable import disk_errors
from edge_runtime.errors import MissingExtraError, ResourceError

PACKAGES = Path("/usr/lib/postgresql")
SYSTEM_USER = "postgres"
USER = "gudgeon"
START_TIMEOUT_S = 60
#: for tests and benchmarks of other things: nothing survives a power cut
CARELESS = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")


def programs() -> Path | None:
    """The folder of the newest installed server, or None."""
    found = [p for p in PACKAGES.glob("*/bin") if (p / "initdb").exists()]
    return max(found, key=lambda p: float(p.parent.name), default=None)


class PostgresServer:
    """`start`, then `stop`; MissingExtraError where no server is installed."""

    def __init__(self, folder: Path, port: int, options: tuple[str, ...] = ()) -> None:
        bin_folder = programs()
        if bin_folder is None:
            raise MissingExtraError("PostgreSQL is not installed; install it with: apt-get install postgresql")
        self._bin, self._folder, self._port, self._options = bin_folder, folder, port, options
        self._data = folder / "data"
        self.password_file = folder / "password"
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}@127.0.0.1:{self._port}/{database}"

    @property
    def password(self) -> str:
        return self.password_file.read_text().strip()

    def start(self) -> None:
        if not (self._data / "PG_VERSION").exists():
            self._make()
        settings = (f"port={self._port}", "listen_addresses=127.0.0.1", "unix_socket_directories=")
        options = [word for setting in (*settings, *self._options) for word in ("-c", setting)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*as_user(), str(self._bin / "postgres"), "-D", str(self._data), *options],
                stdout=log, stderr=log, preexec_fn=end_with_parent,
            )  # fmt: skip
        self._wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast": does not wait for those who are connected
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._process = None

    def kill(self) -> None:
        """As a power cut: nothing is written out. For drills."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    @property
    def pid(self) -> int:
        """0 while it does not run."""
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def create(self, database: str) -> str:
        """An empty database; its URL, where it is not there yet."""
        with psycopg.connect(self.url(), password=self.password, autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone():
                connection.execute(f'CREATE DATABASE "{database}"')
        return self.url(database)

    def _make(self) -> None:
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._data.mkdir(mode=0o700, exist_ok=True)
            self.password_file.touch(0o600)
            self.password_file.write_text(secrets.token_urlsafe(24) + "\n")
        if as_user():
            for path in (self._data, self.password_file):
                shutil.chown(path, SYSTEM_USER)
        auth = ("--auth-host=scram-sha-256", "--auth-local=scram-sha-256", f"--pwfile={self.password_file}")
        options = (f"--username={USER}", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", *auth)
        command = [*as_user(), str(self._bin / "initdb"), "-D", str(self._data), *options]
        made = subprocess.run(command, capture_output=True, check=False, cwd=self._folder)
        if made.returncode:
            reason = made.stderr.decode().strip()
            shutil.rmtree(self._data, ignore_errors=True)
            raise ResourceError(
                f"{self._data}: PostgreSQL could not make its files: {reason}; choose a folder that the "
                f"user {SYSTEM_USER if as_user() else 'you are'} can reach"
            )

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url(), password=self.password, connect_timeout=2).close()
            except psycopg.OperationalError as error:
                if not self.alive or time.monotonic() > deadline:
                    raise ResourceError(f"PostgreSQL did not start: {error}; see {self._folder / 'log'}") from error
                time.sleep(0.05)
            else:
                return


def as_user() -> list[str]:
    """Empty, or what goes before a command, so that it does not run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={SYSTEM_USER}", f"--regid={SYSTEM_USER}", "--clear-groups"]
