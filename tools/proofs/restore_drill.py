"""`python -m tools.proofs.restore_drill` (`make restore-drill`): lose a cloud, and bring a moment of it back.

A cloud's folder is made for real: a store, the key, an operator, a certificate authority, a signed registry. While changes are
written to it twenty times a second, as the API writes them, `gudgeon backup run` copies it as a process of its own. Then the
disaster: the database server is killed, the folder deleted, the backup killed too. A moment in between and the newest one are
restored into new folders, as `gudgeon backup restore` does.

Checked: of that moment, every row committed before the copy it came from is there and none committed after the moment; the audit
log is whole against its signed checkpoint; keys, authority and registry are the same bytes and still work; a change can be
written again.

RPO: what was committed at the end and is gone after a restore of the newest, in seconds. RTO: from the call to a store that
answers and is checked.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Engine, select

from cloud.access import operators
from cloud.access.roles import Actor, Role
from cloud.audit import checkpoint
from cloud.backup.restoring import restored
from cloud.ca.local import LocalAuthority
from cloud.registry import status
from cloud.registry.folder import Registry
from cloud.registry.making import make_registry
from cloud.settings import CloudSettings, load_cloud
from cloud.sockets import listen, port_of
from cloud.store import tables as t
from cloud.store import twin
from cloud.store.opening import open_store
from cloud.store.postgres_server import PostgresServer, programs
from edge_runtime.child import end_with_parent
from edge_runtime.errors import GudgeonError, exit_code
from edge_runtime.identity import load_or_make
from tools.arguments import check_bounds

KINDS = ("sqlite", "postgresql")
DRILL = Actor("drill", Role.OPERATOR, "cli")
WRITE_EVERY_S = 0.05
SIGN_EVERY_S = 0.5
WAIT_S = 120.0
TEMP = Path("/var/tmp")  # noqa: S108  # PostgreSQL does not run as root and must reach its files


class Written(NamedTuple):
    """A change of desired state, by its version, and when its transaction was committed."""

    version: int
    before_ns: int
    after_ns: int


class Result(NamedTuple):
    store: str
    written: int
    moment_rows: int
    lost_before_moment: int
    beyond_moment: int
    moment_gap_s: float
    newest_rows: int
    rpo_s: float
    rto_moment_s: float
    rto_newest_s: float
    files: int
    findings: list[str]

    @property
    def passed(self) -> bool:
        return not self.findings and not self.beyond_moment and not self.lost_before_moment


class Writer:
    """Changes desired state until it is stopped, and signs the audit log as the cloud does."""

    def __init__(self, engine: Engine, settings: CloudSettings) -> None:
        self._engine, self._settings = engine, settings
        self.written: list[Written] = []
        self.error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        key, signed_s = load_or_make(self._settings.store.key_file), 0.0
        try:
            while not self._stop.wait(WRITE_EVERY_S):
                before_ns = time.time_ns()
                found = twin.set_desired(self._engine, "dev1", {"metered": True}, [], key.sign, before_ns, DRILL)
                self.written.append(Written(found["desired"]["version"], before_ns, time.time_ns()))
                if time.monotonic() - signed_s > SIGN_EVERY_S:
                    checkpoint.sign(self._engine, key, self._settings.anchor_file, time.time_ns())
                    signed_s = time.monotonic()
        except Exception as error:
            self.error = error


@contextmanager
def a_cloud(kind: str, folder: Path) -> Iterator[tuple[Path, PostgresServer | None]]:
    """Its configuration, and its database server if it has one."""
    with ExitStack() as stack:
        server = None
        store = 'url = "sqlite:///cloud.db"'
        if kind == "postgresql":
            with listen("127.0.0.1", 0, "") as probe:
                port = port_of(probe)
            server = PostgresServer(folder / "postgres", port)
            server.start()
            stack.callback(server.stop)
            store = f'url = "{server.create("gudgeon")}"\npassword_file = "postgres/password"'
        config = folder / "cloud.toml"
        config.write_text(f'[store]\n{store}\n[registry]\nfolder = "registry"\n')
        settings = load_cloud(config)
        now = datetime.now(UTC).replace(microsecond=0)
        LocalAuthority(settings.ca_folder).create("Drill", now)
        make_registry(folder / "registry", folder.parent / "holders", now)
        load_or_make(settings.store.key_file)
        yield config, server


def drill(kind: str, folder: Path, before_s: float, after_s: float, every_s: float) -> Result:
    home, backup = folder / "line", folder / "backup"
    home.mkdir(mode=0o755)
    with a_cloud(kind, home) as (config, server):
        settings = load_cloud(config)
        engine = open_store(settings.store.address)
        operators.add(engine, DRILL, "ada", Role.ADMIN, None, time.time_ns())
        kept = {str(p.relative_to(home)): p.read_bytes() for p in _plain(home)}
        copier = _backup(config, backup, every_s)
        try:
            writer = Writer(engine, settings)
            _until(lambda: _first_copy(backup, kind), copier)
            time.sleep(before_s)
            moment_ns = time.time_ns()
            time.sleep(after_s)
            copier.kill()  # while changes go on: nothing is copied at the last moment
            writer.stop()
        finally:
            copier.kill()
            copier.wait()
        engine.dispose()
        if server is not None:
            server.kill()
    shutil.rmtree(home)
    return _compare(kind, folder, writer.written, moment_ns, kept)


def _compare(kind: str, folder: Path, written: list[Written], moment_ns: int, kept: dict[str, bytes]) -> Result:
    backup, findings = folder / "backup", list[str]()
    with restored(backup, moment_ns, folder / "moment", DRILL) as (at, engine):
        versions = _versions(engine)
        findings += at.findings
    copied_ns = at.copy_ns or moment_ns
    lost = [w for w in written if w.after_ns < copied_ns and w.version not in versions and kind == "postgresql"]
    # SQLite: what was committed before its copy began is in it; the copy takes a moment itself
    beyond = [w for w in written if w.before_ns > moment_ns and w.version in versions]
    newest_there = max((w.after_ns for w in written if w.version in versions), default=0)
    last_before = max((w.after_ns for w in written if w.after_ns <= moment_ns), default=0)
    with restored(backup, None, folder / "newest", DRILL) as (newest, engine):
        there = _versions(engine)
        findings += newest.findings
        findings += _still_works(folder / "newest", engine, kept, written)
    rpo_ns = written[-1].after_ns - max((w.after_ns for w in written if w.version in there), default=0)
    if kind == "sqlite":
        lost = [w for w in written if w.version < max(versions, default=0) and w.version not in versions]
    return Result(
        kind, len(written), len(versions), len(lost), len(beyond), max(0, last_before - newest_there) / 1e9, len(there),
        rpo_ns / 1e9, at.took_s, newest.took_s, newest.files, findings,
    )  # fmt: skip


def _still_works(home: Path, engine: Engine, kept: dict[str, bytes], written: list[Written]) -> list[str]:
    """What is wrong with the restored files, and with going on from there."""
    found = [
        f"{name}: not the same after the restore"
        for name, data in kept.items()
        if not (home / name).exists() or (home / name).read_bytes() != data
    ]
    settings = load_cloud(home / "cloud.toml")
    if not LocalAuthority(settings.ca_folder).issuers():
        found.append("the authority has no issuer any more")
    try:
        status.verify(Registry(home / "registry"), datetime.now(UTC))
    except GudgeonError as error:
        found.append(f"the registry does not verify any more: {error}")
    if [row["name"] for row in operators.listed(engine)] != ["ada"]:
        found.append("the operator is gone")
    key = load_or_make(settings.store.key_file)
    again = twin.set_desired(engine, "dev1", {"metered": False}, [], key.sign, time.time_ns(), DRILL)
    if again["desired"]["version"] > written[-1].version + 1:
        found.append("the next version skips some")
    report = checkpoint.look(engine, key.public_key(), settings.anchor_file)
    return found + report.findings


def _versions(engine: Engine) -> set[int]:
    """Of desired state, as the audit log has them."""
    query = select(t.audit.c.detail).where(t.audit.c.action == "desired.change")
    with engine.connect() as connection:
        return {int(json.loads(detail)["version"]) for detail in connection.execute(query).scalars()}


def _plain(home: Path) -> list[Path]:
    """Keys, authority, registry: what must come back byte for byte."""
    folders = [p for name in ("ca", "registry") for p in (home / name).rglob("*") if p.is_file() and p.name[0] != "."]
    return [home / "cloud.key", home / "cloud.toml", *folders]


def _backup(config: Path, to: Path, every_s: float) -> subprocess.Popen[bytes]:
    words = ("backup", "run", "--config", str(config), "--to", str(to), "--every", str(every_s), "--json")
    log = (to.parent / "backup.log").open("wb")
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", "edge_runtime.cli", *words], stdout=log, stderr=log, preexec_fn=end_with_parent
        )


def _first_copy(backup: Path, kind: str) -> bool:
    place = backup / "sqlite" if kind == "sqlite" else backup / "postgresql" / "base"
    return any(p.name[0] != "." and p.name != "seen" for p in place.glob("*"))


def _until(holds: Any, copier: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        if copier.poll() is not None or time.monotonic() > deadline:
            raise GudgeonError("gudgeon backup run made no copy; see backup.log beside the backup")
        time.sleep(0.05)


def run(kind: str, before_s: float = 3.0, after_s: float = 3.0, every_s: float = 1.0) -> Result:
    with tempfile.TemporaryDirectory(prefix="gudgeon-drill-", dir=TEMP) as folder:
        Path(folder).chmod(0o711)
        return drill(kind, Path(folder), before_s, after_s, every_s)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make restore-drill", description=__doc__.split("\n\n")[0])
    parser.add_argument("--store", choices=KINDS, action="append", help="both, where PostgreSQL is installed")
    parser.add_argument("--before", type=float, default=10.0, metavar="S", help="of writing before the moment (10)")
    parser.add_argument("--after", type=float, default=10.0, metavar="S", help="… and after it (10)")
    parser.add_argument("--every", type=float, default=1.0, metavar="S", help="between two copies of SQLite (1)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    check_bounds(args, {"before": (1, 3600), "after": (1, 3600), "every": (0.1, 60)})
    kinds = args.store or [kind for kind in KINDS if kind == "sqlite" or programs()]
    results = [run(kind, args.before, args.after, args.every) for kind in kinds]
    for result in results:
        if args.json:
            print(json.dumps(result._asdict() | {"passed": result.passed}))
            continue
        print(f"{result.store}: {result.written} changes written, {result.files} files kept")
        print(
            f"  the moment: {result.moment_rows} changes, {result.beyond_moment} of them younger, {result.lost_before_moment} "
            f"missing; ends {result.moment_gap_s:.2f} s before it; RTO {result.rto_moment_s:.2f} s"
        )
        print(f"  the newest: {result.newest_rows} changes; RPO {result.rpo_s:.2f} s, RTO {result.rto_newest_s:.2f} s")
        for finding in result.findings:
            print(f"  {finding}", file=sys.stderr)
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(exit_code("restore_drill", main))
