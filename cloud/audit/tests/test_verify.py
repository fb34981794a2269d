"""Whatever is done to the log shows: in the store, in an export, and against a checkpoint kept elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, delete, update

from cloud.audit import checkpoint, export
from cloud.audit.checkpoint import Checkpoint, look, sign
from cloud.audit.cli import main
from cloud.audit.log import record_alone
from cloud.audit.row import GENESIS, AuditRow
from cloud.audit.tests.test_log import ADA, chain
from cloud.audit.verify import check
from cloud.store import tables as t
from cloud.store.database import WRITES
from edge_runtime.errors import DataError, GudgeonError, UsageError
from edge_runtime.identity import load_or_make, public_text

KEY = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
c = t.audit.c


def filled(engine: Engine, anchor: Path) -> None:
    """Ten rows, signed after 4 and after 8."""
    for n in range(1, 11):
        record_alone(engine, ADA, "test.act", f"dev{n}", now_ns=n)
        if n in (4, 8):
            sign(engine, KEY, anchor, n)


def rehash(connection: Connection, since: int) -> None:
    """What a clever forger does: all hashes from here on made anew."""
    prev = GENESIS
    for found in connection.execute(t.audit.select().order_by(c.seq)).mappings().all():
        row = AuditRow(**{name: found[name] for name in AuditRow._fields})
        if row.seq >= since:
            row = row._replace(prev=prev)
            connection.execute(update(t.audit).where(c.seq == row.seq).values(prev=prev, hash=row.digest()))
        prev = row.digest()


def edit(connection: Connection) -> None:
    connection.execute(update(t.audit).where(c.seq == 6).values(actor="bob"))


def edit_cleverly(connection: Connection) -> None:
    edit(connection)
    rehash(connection, 6)


def drop(connection: Connection) -> None:
    connection.execute(delete(t.audit).where(c.seq == 6))


def drop_cleverly(connection: Connection) -> None:
    drop(connection)
    for n in (7, 8, 9, 10):
        connection.execute(update(t.audit).where(c.seq == n).values(seq=n - 1))
    rehash(connection, 6)


def exchange(connection: Connection) -> None:
    for old, new in ((6, 99), (7, 6), (99, 7)):
        connection.execute(update(t.audit).where(c.seq == old).values(seq=new))


def cut(connection: Connection) -> None:
    connection.execute(delete(t.audit).where(c.seq > 5))
    connection.execute(delete(t.audit_checkpoint).where(t.audit_checkpoint.c.seq > 5))


def wipe(connection: Connection) -> None:
    connection.execute(delete(t.audit))
    connection.execute(delete(t.audit_checkpoint))


def forge(connection: Connection) -> None:
    edit_cleverly(connection)
    last = connection.execute(t.audit.select().where(c.seq == 8)).mappings().one()
    message = Checkpoint(8, last["hash"], 8).sealed(Ed25519PrivateKey.generate())
    connection.execute(update(t.audit_checkpoint).where(t.audit_checkpoint.c.seq == 8).values(message=message))


TAMPERED: dict[str, tuple[Callable[[Connection], None], str]] = {
    "a row edited": (edit, "row 6 was edited"),
    "a row edited and all hashes made anew": (edit_cleverly, "row 8 is not the one that was signed"),
    "a row deleted": (drop, "rows 6 to 6 are missing"),
    "a row deleted and the rest moved up": (drop_cleverly, "row 8 is not the one that was signed"),
    "rows exchanged": (exchange, "row 6 was edited"),
    "the end cut off with its checkpoints": (cut, "a checkpoint holds row 8, which is not there: the end was cut off"),
    "everything wiped": (wipe, "a checkpoint holds row 8, which is not there"),
    "a checkpoint forged": (forge, "the signature does not fit the key"),
}


def tamper(engine: Engine, how: str) -> None:
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        TAMPERED[how][0](connection)


@pytest.mark.parametrize("how", TAMPERED)
def test_what_was_done_shows_and_is_never_signed(engine: Engine, tmp_path: Path, how: str) -> None:
    anchor = tmp_path / "cloud.audit"
    filled(engine, anchor)
    assert look(engine, KEY.public_key(), anchor) == check(chain(engine), [(8, chain(engine)[7][1])])
    assert look(engine, KEY.public_key(), anchor).signed == 8
    tamper(engine, how)
    report = look(engine, KEY.public_key(), anchor)
    assert any(TAMPERED[how][1] in finding for finding in report.findings), report.findings
    record_alone(engine, ADA, "test.act", "later")
    assert look(engine, KEY.public_key(), anchor).findings
    before = anchor.read_bytes()
    if how not in ("a row edited", "a row deleted", "rows exchanged"):
        with pytest.raises(GudgeonError, match="nothing is signed"):
            sign(engine, KEY, anchor, 20)
        assert anchor.read_bytes() == before


def test_what_is_newer_than_the_last_checkpoint_is_checked_before_it_is_signed(sqlite: Engine, tmp_path: Path) -> None:
    anchor = tmp_path / "cloud.audit"
    filled(sqlite, anchor)
    with sqlite.execution_options(**{WRITES: True}).begin() as connection:
        connection.execute(update(t.audit).where(c.seq == 9).values(subject="other"))
    with pytest.raises(GudgeonError, match="row 9 was edited"):
        sign(sqlite, KEY, anchor, 20)


def test_signing_goes_on_from_the_last_checkpoint(engine: Engine, tmp_path: Path) -> None:
    anchor = tmp_path / "cloud.audit"
    assert sign(engine, KEY, anchor, 1) is None
    filled(engine, anchor)
    made = sign(engine, KEY, anchor, 11)
    assert made is not None
    assert made.seq == 10
    assert sign(engine, KEY, anchor, 12) is None
    anchor.unlink()  # lost: told again
    assert (sign(engine, KEY, anchor, 13) or made).seq == 10
    assert anchor.exists()
    assert look(engine, KEY.public_key(), anchor).signed == 10


def test_a_database_and_its_anchor_rolled_back_together_show_against_a_copy_elsewhere(
    sqlite: Engine, tmp_path: Path
) -> None:
    anchor, copy = tmp_path / "cloud.audit", tmp_path / "elsewhere"
    filled(sqlite, anchor)
    copy.write_bytes(anchor.read_bytes())
    tamper(sqlite, "everything wiped")
    anchor.unlink()
    assert look(sqlite, KEY.public_key(), anchor).findings == []
    report = look(sqlite, KEY.public_key(), anchor, [copy.read_text()])
    assert "the end was cut off" in report.findings[0]


# ── exports and the command ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def exported(sqlite: Engine, tmp_path: Path) -> Path:
    """A configuration with a filled store; `cloud.jsonl` beside it."""
    key = load_or_make(tmp_path / "cloud.key")
    config = tmp_path / "cloud.toml"
    config.write_text("")
    for n in range(1, 6):
        record_alone(
            sqlite, ADA, "test.act" if n % 2 else "other.act", f"dev{n}", outcome="refused" if n == 3 else "done"
        )
        if n == 2:
            sign(sqlite, key, tmp_path / "cloud.audit", n)
    assert main(["export", "--config", str(config), "--out", str(tmp_path / "cloud.jsonl")]) == 0
    return config


def test_an_export_is_checked_with_the_public_key_alone(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, key = exported.with_name("cloud.jsonl"), public_text(load_or_make(exported.with_name("cloud.key")))
    capsys.readouterr()
    assert main(["verify", "--export", str(file), "--key", key, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["whole"], told["rows"], told["signed"]) == (True, 5, 5)
    assert main(["verify", "--export", str(file), "--config", str(exported)]) == 0
    assert main(["verify", "--config", str(exported)]) == 0
    assert "5 rows, signed up to row 2, 3 newer\nwhole" in capsys.readouterr().out
    other = public_text(Ed25519PrivateKey.generate())
    assert main(["verify", "--export", str(file), "--key", other]) == 1
    assert "does not fit the key" in capsys.readouterr().err


LINES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "edited": lambda lines: [line.replace(b"dev3", b"dev4") for line in lines],
    "deleted": lambda lines: lines[:3] + lines[4:],
    "exchanged": lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
    "doubled": lambda lines: [*lines[:3], *lines[2:]],
    "the end cut off": lambda lines: lines[:4],
    "only the header": lambda lines: lines[:1],
}


@pytest.mark.parametrize("how", LINES)
def test_an_export_that_was_tampered_with_is_told(exported: Path, how: str) -> None:
    file = exported.with_name("cloud.jsonl")
    file.write_bytes(b"\n".join(LINES[how](file.read_bytes().splitlines())) + b"\n")
    assert main(["verify", "--export", str(file), "--config", str(exported)]) == 1


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_byte_of_an_export_can_be_changed(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    rows, prev = [], GENESIS
    for n in (1, 2, 3):
        rows.append(AuditRow(n, n, "ada", "admin", "cli", "", "test.act", "dev", "done", "{}", prev))
        prev = rows[-1].digest()
    header = json.dumps({"export": Checkpoint(3, prev, 9).sealed(KEY)}).encode()
    whole = b"\n".join([header, *(row.line() for row in rows)]) + b"\n"
    unread = whole.index(b'=="}') - 1  # four bits of the last digit of base64 mean nothing
    at = data.draw(st.integers(0, len(whole) - 2).filter(lambda n: n != unread))
    changed = whole[:at] + bytes([data.draw(st.integers(33, 126).filter(lambda b: b != whole[at]))]) + whole[at + 1 :]
    path = tmp_path_factory.mktemp("export") / "x.jsonl"
    path.write_bytes(changed)
    try:
        assert export.look(path, KEY.public_key(), []).findings
    except DataError:
        pass
    path.write_bytes(whole)
    assert export.look(path, KEY.public_key(), []).findings == []


def test_what_was_done_is_listed(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["list", "--config", str(exported), "--did", "test", "--json"]) == 0
    assert [row["subject"] for row in json.loads(capsys.readouterr().out)] == ["dev5", "dev3", "dev1"]
    assert main(["list", "--config", str(exported), "--outcome", "refused"]) == 0
    told = capsys.readouterr().out
    assert "refused  test.act" in told
    assert "dev3  by ada (operator, token 127.0.0.1)" in told


def test_wrong_use_is_told(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--key KEY"):
        main(["verify", "--export", str(tmp_path / "cloud.jsonl")])
    with pytest.raises(UsageError, match="base64"):
        main(["verify", "--export", str(tmp_path / "cloud.jsonl"), "--key", "!"])
    with pytest.raises(DataError, match="not an audit export"):
        main(["verify", "--export", str(exported), "--config", str(exported)])
    with pytest.raises(ValueError, match="base64"):
        checkpoint.public_key("!")
