"""What takes the log of a PostgreSQL server, with a program of the same name in its place."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from sqlalchemy import URL

from cloud.backup import postgres_copies
from cloud.backup.postgres_copies import PostgresCopies

PROGRAM = """#!/bin/sh
case "$*" in *--create-slot*) exit 0;; esac
echo $$ > {file}.new && mv {file}.new {file}
exec sleep 300
"""


def test_a_ctrl_c_at_the_terminal_is_not_for_what_takes_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would end before the copy that is under way, which then misses the rest of the log."""
    file = tmp_path / "pid"
    program = tmp_path / "pg_receivewal"
    program.write_text(PROGRAM.format(file=file))
    program.chmod(0o755)
    monkeypatch.setattr(postgres_copies, "programs", lambda: tmp_path)
    url = URL.create("postgresql", "u", "secret", "127.0.0.1", 1, "gudgeon")
    copies = PostgresCopies(tmp_path / "copies", url, time.time_ns)
    copies.start()
    try:
        deadline = time.monotonic() + 60
        while not file.exists():
            assert copies.alive
            assert time.monotonic() < deadline
            time.sleep(0.02)
        receiver = int(file.read_text())
        assert os.getsid(receiver) == receiver
    finally:
        copies.stop()
    assert not copies.alive
