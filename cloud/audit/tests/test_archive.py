"""Rows that were put into files join the living chain, and what was done to the files, or without them, shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, delete, text, update

from cloud.access.roles import Actor, Role
from cloud.audit import archive as archives
from cloud.audit import export
from cloud.audit.archive import archive, look_through
from cloud.audit.checkpoint import ARCHIVE, Checkpoint, look, sign
from cloud.audit.cli import main
from cloud.audit.listing import Wanted, listing
from cloud.audit.log import record_alone
from cloud.audit.tests.test_log import ADA, chain
from cloud.audit.verify import Report
from cloud.store import tables as t
from cloud.store.database import WRITES
from edge_runtime.errors import DataError, GudgeonError, UsageError
from edge_runtime.identity import load_or_make

KEY = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
PUBLIC = KEY.public_key()
SHELL = Actor("cli:root", Role.ADMIN, "cli")
LATE = 10**18
c = t.audit.c


class Log:
    """A log of rows at 1, 2, 3 … ns; `archive` up to such a moment."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder, self.anchor, self.at = engine, folder / "old", folder / "cloud.audit", 0

    def grow(self, count: int) -> None:
        for _ in range(count):
            self.at += 1
            record_alone(self.engine, ADA, "test.act", f"dev{self.at}", now_ns=self.at)
        sign(self.engine, KEY, self.anchor, self.at)

    def archive(self, before_ns: int) -> archives.Segment | None:
        made = archive(self.engine, KEY, self.anchor, self.folder, SHELL, before_ns, LATE)
        sign(self.engine, KEY, self.anchor, self.at)
        return made

    def report(self) -> Report:
        return look_through(self.engine, PUBLIC, self.anchor, self.folder, [])

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    def write(self, *statements: object) -> None:
        with self.engine.execution_options(**{WRITES: True}).begin() as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[call-overload]


def archived_twice(engine: Engine, folder: Path) -> Log:
    """Rows 1 to 5 and 6 to 8 in files, and what came after them."""
    made = Log(engine, folder)
    made.grow(8)
    made.archive(6)
    made.grow(4)
    made.archive(9)
    made.grow(1)
    return made


@pytest.fixture
def log(engine: Engine, tmp_path: Path) -> Log:
    return archived_twice(engine, tmp_path)


def test_old_rows_are_in_files_and_the_chain_goes_on(log: Log) -> None:
    living = [row.seq for row, _ in chain(log.engine)]
    assert [path.name for path in log.files()] == [
        "audit-000000000001-000000000005.jsonl",
        "audit-000000000006-000000000008.jsonl",
    ]
    assert living == list(range(9, living[-1] + 1))
    whole = log.report()
    assert (whole.findings, whole.rows, whole.last, whole.archived) == ([], living[-1], living[-1], 0)
    alone = look(log.engine, PUBLIC, log.anchor)
    assert (alone.findings, alone.rows, alone.archived) == ([], len(living), 8)
    assert alone.signed == whole.signed == living[-1]
    told = listing(log.engine, Wanted(did="audit.archive"))
    assert [(row["detail"]["first"], row["detail"]["last"]) for row in told] == [(6, 8), (1, 5)]
    assert told[0]["actor"] == "cli:root"


def test_what_is_young_or_newest_signed_stays(sqlite: Engine, tmp_path: Path) -> None:
    log = Log(sqlite, tmp_path)
    assert log.archive(LATE) is None, "an empty log"
    log.grow(3)
    assert log.archive(1) is None
    assert (log.archive(LATE) or ())[1:3] == (1, 2), "the newest that was signed stays"
    assert log.report().findings == []
    record_alone(sqlite, ADA, "test.act", "not signed yet")
    assert (archive(sqlite, KEY, log.anchor, log.folder, SHELL, LATE, LATE) or ())[1:3] == (3, 3)
    assert log.report().findings == []


# ── what is done to the files ───────────────────────────────────────────────────────────────────────────────────────


def replace_in(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def cut_off(path: Path) -> None:
    """The last row, with all that tells of it but the header."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b'"seq":5,' not in line))


def made_anew(log: Log) -> None:
    """By one who can write the files, and has no key: a header of their own."""
    other = Ed25519PrivateKey.generate()
    lines = log.files()[0].read_bytes().splitlines()
    header = json.dumps({"export": Checkpoint(4, "0" * 64, 1).sealed(other)}).encode()
    log.files()[0].write_bytes(b"\n".join([header, *lines[1:5]]) + b"\n")


def put_back() -> object:
    columns = "at_ns, actor, role, via, address, action, subject, outcome, detail, prev, hash"
    return text(f"INSERT INTO audit SELECT 8, {columns} FROM audit WHERE seq = 9")


def left_out(log: Log) -> None:
    replace_in(log.files()[0], log.files()[0].read_bytes().splitlines()[3] + b"\n", b"")


def exchanged(log: Log) -> None:
    log.files()[0].write_bytes(log.files()[1].read_bytes())


FILES: dict[str, tuple[Callable[[Log], object], str]] = {
    "a row edited": (lambda log: replace_in(log.files()[0], b'"dev3"', b'"dev4"'), "row 4 does not hold the hash"),
    "the first row edited": (lambda log: replace_in(log.files()[1], b'"dev6"', b'"dev7"'), "does not hold the hash"),
    "the last row edited": (
        lambda log: replace_in(log.files()[0], b'"dev5"', b'"dev0"'),
        "not the one that was signed",
    ),
    "a row left out": (left_out, "are missing"),
    "the end cut off": (lambda log: cut_off(log.files()[0]), "the end was cut off"),
    "a file lost": (lambda log: log.files()[0].unlink(), "rows 1 to 5 are missing: there is no"),
    "the newest file lost": (lambda log: log.files()[1].unlink(), "rows 6 to 8 are missing: there is no"),
    "a file emptied": (lambda log: log.files()[0].write_bytes(b""), "rows 1 to 5: "),
    "a file in the place of another": (exchanged, "has rows 6 to 8, not rows 1 to 5 as they were archived"),
    "a file made anew without the key": (made_anew, "the signature does not fit the key"),
}


@pytest.mark.parametrize("how", FILES)
def test_what_is_done_to_the_files_shows(log: Log, how: str) -> None:
    FILES[how][0](log)
    findings = log.report().findings
    assert any(FILES[how][1] in finding for finding in findings), findings
    assert look(log.engine, PUBLIC, log.anchor).findings == [], "the store alone is whole"


# ── what is done to the store ───────────────────────────────────────────────────────────────────────────────────────


def forged() -> object:
    """A checkpoint that there was once is no word that rows were archived."""
    message = Checkpoint(8, "1" * 64, 1).sealed(KEY)
    return update(t.audit_archive).where(t.audit_archive.c.seq == 8).values(message=message)


STORE: dict[str, tuple[Callable[[], object], str]] = {
    "rows deleted beyond the archive": (lambda: delete(t.audit).where(t.audit.c.seq <= 10), "rows 9 to 10 are missing"),
    "the word of the archive deleted": (lambda: delete(t.audit_archive), "rows 1 to 8 are missing"),
    "the newest word deleted": (
        lambda: delete(t.audit_archive).where(t.audit_archive.c.seq == 8),
        "rows 6 to 8 are missing",
    ),
    "a checkpoint in the place of the word": (forged, "what says that rows were archived"),
    "the first living row edited": (lambda: update(t.audit).where(c.seq == 9).values(actor="bob"), "row 9 was edited"),
    "an old row put back, changed": (put_back, "it is out of order"),
}


@pytest.mark.parametrize("how", STORE)
def test_what_is_done_to_the_store_shows_and_is_never_archived(log: Log, how: str) -> None:
    log.write(STORE[how][0]())
    for report in (log.report(), look(log.engine, PUBLIC, log.anchor)):
        assert any(STORE[how][1] in finding for finding in report.findings), report.findings
    with pytest.raises(GudgeonError, match="nothing is archived"):
        log.archive(LATE)


def test_a_file_that_was_not_written_as_it_should_takes_nothing_out(
    sqlite: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(sqlite, tmp_path)
    log.grow(6)
    whole = export.lines
    monkeypatch.setattr(export, "lines", lambda *given: (line.replace(b"dev2", b"dev3") for line in whole(*given)))
    with pytest.raises(DataError, match="nothing was archived"):
        log.archive(LATE)
    assert log.files() == []
    monkeypatch.undo()
    assert log.report().rows == 6


def test_a_crash_between_file_and_store_leaves_a_file_too_many(
    sqlite: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(sqlite, tmp_path)
    log.grow(6)

    def cut(*given: object, **more: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(archives, "record", cut)
    with pytest.raises(KeyboardInterrupt):
        log.archive(4)
    monkeypatch.undo()
    assert log.report().findings == []
    assert log.report().rows == 6
    assert (log.archive(LATE) or ())[1:3] == (1, 5)
    assert len(log.files()) == 2
    assert log.report().findings == []


def test_the_chain_is_signed_on_after_an_archive_also_where_the_anchor_is_old(sqlite: Engine, tmp_path: Path) -> None:
    log = Log(sqlite, tmp_path)
    log.grow(3)
    old = log.anchor.read_bytes()
    log.grow(5)
    log.archive(6)
    log.anchor.write_bytes(old)
    log.grow(2)
    assert log.report().findings == []
    assert log.report().signed == log.report().last
    assert Checkpoint(5, "0" * 64, 1).sealed(KEY) != Checkpoint(5, "0" * 64, 1).sealed(KEY, ARCHIVE)


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command(sqlite: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder = tmp_path / "cloud.toml", tmp_path / "audit-archive"
    config.write_text("")
    key, anchor, known = load_or_make(tmp_path / "cloud.key"), tmp_path / "cloud.audit", tmp_path / "known"
    for n in range(1, 7):
        record_alone(sqlite, ADA, "test.act", f"dev{n}", now_ns=n)
        if n in (2, 6):
            sign(sqlite, key, anchor, n)
            known.write_bytes(anchor.read_bytes()) if n == 2 else None
    given = ["--config", str(config)]
    assert main(["archive", *given, "--to", str(folder), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["first"], made["last"]) == (1, 5)
    assert main(["archive", *given, "--to", str(folder)]) == 0
    assert "no rows that may go" in capsys.readouterr().out
    assert main(["verify", *given]) == 0
    assert "rows 1 to 5 are in an archive and were not looked at\nwhole" in capsys.readouterr().out
    assert main(["verify", *given, "--archive", str(folder), "--known", str(known)]) == 0
    assert capsys.readouterr().out.startswith("7 rows, ")
    with pytest.raises(UsageError, match="row 2 is in an archive; add --archive"):
        main(["verify", *given, "--known", str(known)])
    assert main(["verify", *given, "--export", str(folder / made["file"])]) == 0, "a file of the archive is an export"
    assert main(["export", *given, "--out", str(tmp_path / "now.jsonl")]) == 0
    assert main(["verify", *given, "--export", str(tmp_path / "now.jsonl")]) == 0
    assert "2 rows, signed up to row 7; rows 1 to 5 are in an archive" in capsys.readouterr().out
    (folder / made["file"]).unlink()
    assert main(["verify", *given, "--archive", str(folder)]) == 1
    with pytest.raises(UsageError, match="--keep-days"):
        main(["archive", *given, "--to", str(folder), "--keep-days", "-1"])
