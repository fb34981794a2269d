"""The audit log on both databases: one chain, whoever appends."""

from __future__ import annotations

import json
import threading

import pytest
from sqlalchemy import Engine

from cloud.access.roles import Actor, Role
from cloud.audit import record
from cloud.audit.log import record_alone, rows
from cloud.audit.row import GENESIS, AuditRow, detail_text, plain, read_row
from cloud.store.database import WRITES

ADA = Actor("ada", Role.OPERATOR, "token", "127.0.0.1")


def chain(engine: Engine) -> list[tuple[AuditRow, str]]:
    with engine.connect() as connection:
        return list(rows(connection))


def test_each_row_holds_the_hash_of_the_one_before(engine: Engine) -> None:
    for n in range(3):
        record_alone(engine, ADA, "test.act", f"dev{n}", detail={"n": n, "text": "ü\x00"}, now_ns=100 + n)
    found = chain(engine)
    assert [row.seq for row, _ in found] == [1, 2, 3]
    assert [row.prev for row, _ in found] == [GENESIS, *[kept for _, kept in found[:2]]]
    for row, kept in found:
        assert row.digest() == kept
        assert read_row(row.line()) == row
    first = found[0][0]
    assert (first.at_ns, first.actor, first.role, first.via, first.address) == (
        100,
        "ada",
        "operator",
        "token",
        "127.0.0.1",
    )
    assert json.loads(first.detail) == {"n": 0, "text": "ü\x00"}


def test_those_who_append_at_the_same_time_make_one_chain(engine: Engine) -> None:
    errors: list[BaseException] = []

    def append(name: str) -> None:
        try:
            for n in range(10):
                record_alone(engine, ADA._replace(name=name), "test.act", str(n))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=append, args=(f"t{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = [row for row, _ in chain(engine)]
    assert [row.seq for row in found] == list(range(1, 61))
    assert [row.prev for row in found[1:]] == [row.digest() for row in found[:-1]]
    assert [row.subject for row in found if row.actor == "t3"] == [str(n) for n in range(10)]


def test_a_row_is_there_with_the_change_or_not_at_all(engine: Engine) -> None:
    def change() -> None:
        with engine.execution_options(**{WRITES: True}).begin() as connection:
            record(connection, ADA, "test.act", "dev1")
            raise KeyError

    with pytest.raises(KeyError):
        change()
    assert chain(engine) == []


def test_a_transaction_that_only_reads_is_refused(sqlite: Engine) -> None:
    with sqlite.begin() as connection, pytest.raises(ValueError, match="a transaction that writes"):
        record(connection, ADA, "test.act", "dev1")


def test_what_a_stranger_sends_cannot_break_the_log(engine: Engine) -> None:
    hostile = "a\x00\n\x1b[31m\ud800" + "x" * 1000
    record_alone(engine, ADA._replace(name=hostile), "test.act", hostile, detail={"x": "y" * 20_000})
    ((row, kept),) = chain(engine)
    assert row.digest() == kept
    assert row.actor == row.subject == plain(hostile)
    assert len(row.actor) == 300
    assert row.actor.startswith("a\ufffd\ufffd\ufffd[31m\ufffdx")
    assert json.loads(row.detail)["too_long_chars"] > 20_000
    assert detail_text(None) == "{}"
