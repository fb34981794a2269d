"""The newest record of each stream: where the next one goes on. Kept in memory as long as nobody else has written."""

from __future__ import annotations

from typing import NamedTuple

from edge_runtime.outbox.database import Database
from edge_runtime.outbox.packing import unpack
from edge_runtime.wire.envelope import genesis, record_hash


class Newest(NamedTuple):
    """`cum`: bytes of all records of the stream up to this one."""

    seq: int
    hash: str
    cum: int


class Heads:
    """To be used under the database's lock, within a transaction."""

    def __init__(self, database: Database, device: str) -> None:
        self._database, self._device = database, device
        self._known: dict[str, Newest] = {}
        self._version: tuple[int, int] | None = None

    def changed(self) -> bool:
        """Whether another connection has committed since the last call, or the file was replaced; what was known is
        forgotten then."""
        version = self._database.version()
        if version == self._version:
            return False
        self._known.clear()
        self._version = version
        return True

    def forget(self) -> None:
        """A transaction was rolled back."""
        self._version = None

    def newest(self, stream: str) -> Newest:
        """As the append goes by it, after `changed`."""
        return self._known.get(stream) or self.load(stream)

    def advance(self, stream: str, newest: Newest) -> None:
        self._known[stream] = newest

    def load(self, stream: str) -> Newest:
        """As it is in the file."""
        db = self._database.db
        row = db.execute(f"SELECT seq, cum, data FROM event_{stream} ORDER BY seq DESC LIMIT 1").fetchone()
        if row:
            return Newest(row[0], record_hash(unpack(row[2])), row[1])
        head, known, stored = db.execute("SELECT head, hash, stored FROM stream WHERE name = ?", (stream,)).fetchone()
        return Newest(head, known or genesis(self._device, self._database.chain, stream), stored)
