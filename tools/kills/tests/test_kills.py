"""The nursery: each start is a process of its own, a kill is a SIGKILL; and the chain is followed as it should be."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge_runtime.errors import UsageError
from edge_runtime.wire.envelope import Event, genesis, record_hash, record_line
from tools.kills import nursery
from tools.kills.__main__ import main
from tools.kills.links import Links, follow
from tools.kills.rig import Victim

DEVICE, CHAIN = "edge1", "c0ffee00c0ffee00"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    config = tmp_path / "device.toml"
    config.write_text('[device]\nid = "edge1"\nstate_dir = "state"\n[broker]\nport = 1\n')
    (tmp_path / "state").mkdir()
    made = Victim("producer", ["--config", str(config), "--ledger", str(tmp_path / "l.jsonl")], tmp_path / "log")
    yield made
    made.stop()


def test_a_killed_process_is_started_again_as_another(victim: Victim, tmp_path: Path) -> None:
    pids = [victim.pid]
    for _ in range(3):
        victim.kill()
        pids.append(victim.pid)
    assert len(set(pids)) == 4
    assert os.getpid() not in pids
    assert (victim.deaths, victim.ends) == (3, [])
    assert not Path(f"/proc/{pids[0]}").exists()
    assert b"nursery" in Path(f"/proc/{victim.pid}/cmdline").read_bytes()


def test_one_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    made = Victim(
        "producer", ["--config", str(tmp_path / "none.toml"), "--ledger", str(tmp_path / "l")], tmp_path / "log"
    )
    _wait_for_end(made.pid)
    made.kill()
    made.stop()
    assert (made.deaths, len(made.ends)) == (0, 1)
    assert made.ends[0] > 0


def _wait_for_end(pid: int) -> None:
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        os.sched_yield()


def test_every_program_can_be_imported() -> None:
    for program in nursery.PROGRAMS.values():
        assert callable(program())


def record(seq: int, prev: str) -> tuple[str, str]:
    line = record_line(Event(DEVICE, CHAIN, "decision", seq, "b", "k", 1, 1, None, prev, {"n": seq}))
    return line.decode(), record_hash(line)


@pytest.mark.parametrize(
    ("seqs", "break_at", "expected"),
    [
        ([1, 2, 3], None, Links(3, 0, 0)),
        ([1, 3], None, Links(2, 0, 1)),
        ([2, 3], None, Links(2, 0, 1)),
        ([1, 2, 3], 1, Links(3, 1, 0)),
        ([1, 2, 3], 3, Links(3, 1, 0)),
    ],
)
def test_the_chain_is_followed(tmp_path: Path, seqs: list[int], break_at: int | None, expected: Links) -> None:
    path, prev = tmp_path / "cloud.db", genesis(DEVICE, CHAIN, "decision")
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE event (device, chain, stream, seq, record)")
        for seq in range(1, 4):
            text, own = record(seq, "f" * 64 if seq == break_at else prev)
            prev = own
            if seq in seqs:
                db.execute("INSERT INTO event VALUES (?, ?, 'decision', ?, ?)", (DEVICE, CHAIN, seq, text))
        db.commit()
    assert follow(path, DEVICE) == expected


def test_refusals_are_one_line(tmp_path: Path) -> None:
    for arguments in (["--kills", "0"], ["--every-s", "0"], ["--keep", str(tmp_path)]):
        with pytest.raises(UsageError):
            main(arguments)
