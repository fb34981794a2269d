"""A large payload goes in pieces through the outbox and the wire, and comes out whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from cloud.messages import Batch
from cloud.store import blobs, queries
from cloud.tests.databases import KINDS, commit, empty_store
from cloud.tests.made import batch, event
from edge_runtime.errors import DataError, UsageError
from edge_runtime.outbox.store import Outbox
from edge_runtime.wire.envelope import Event, read_record

DATA = bytes(range(256)) * 1000


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    with empty_store(request.param, tmp_path) as opened:
        yield opened


@pytest.fixture
def sent(tmp_path: Path) -> list[Event]:
    """With others of the stream, and of the kind, between the pieces."""
    box = Outbox(tmp_path / "outbox.db", "dev1", "boot")
    box.append("review", "note", {})
    box.append_blob("review", "frame", {"part_seq": 7}, DATA)
    box.append("review", "frame.part", {"odd": True})
    box.append_blob("review", "frame", {"part_seq": 8}, DATA[:100])
    found = [read_record(record.line) for record in box.pending(limit_bytes=len(DATA) * 3)]
    box.close()
    return found


def first(engine: Engine, part_seq: int) -> int:
    rows = queries.events(engine, {"kind": "frame.part"})
    return int(next(row["id"] for row in rows if row["body"].get("meta") == {"part_seq": part_seq}))


def test_the_pieces_are_joined_in_whatever_order_they_came(engine: Engine, sent: list[Event]) -> None:
    found: Batch
    for e in reversed(sent):
        found = batch([e])
        commit(engine, [found], 1)
    assert blobs.payload(engine, first(engine, 7)) == DATA
    assert blobs.payload(engine, first(engine, 8)) == DATA[:100]


def test_a_payload_that_is_not_whole_is_told(engine: Engine, sent: list[Event]) -> None:
    commit(engine, [batch([e for e in sent if e.body.get("part") != 3])], 1)
    with pytest.raises(DataError, match="1 of 6 pieces are not here"):
        blobs.payload(engine, first(engine, 7))


def test_what_is_no_first_piece(engine: Engine, sent: list[Event]) -> None:
    commit(engine, [batch(sent)], 1)
    ids = [row["id"] for row in queries.events(engine, {}) if row["body"].get("part") != 0]
    for number in (*ids, 10**9):
        with pytest.raises(UsageError, match="is not the first piece"):
            blobs.payload(engine, number)


def test_pieces_that_do_not_fit_are_no_payload(engine: Engine) -> None:
    body: dict[str, Any] = {"blob": "0" * 64, "part": 0, "of": 1, "size_bytes": 3, "data": "YWJj"}
    commit(engine, [batch([event(1, "review", "x.part", **body)])], 1)
    (row,) = queries.events(engine, {})
    with pytest.raises(DataError, match="do not fit"):
        blobs.payload(engine, row["id"])
    assert json.loads(row["record"])["body"] == body
