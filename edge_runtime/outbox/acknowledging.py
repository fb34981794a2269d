"""What the cloud has confirmed is deleted, and what the device says of its outbox is made up.

- A stream's row in `stream` is brought up to date when its last record goes, so that the chain goes on from there.
- Deletion goes by small transactions: a control loop that wants to append waits for one of them at most.
- Each checkpoint has a counter that no other has: they are taken from the file a thousand at a time.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_runtime.clock import Clock
from edge_runtime.outbox.database import Database
from edge_runtime.outbox.heads import Heads
from edge_runtime.outbox.reading import lowest
from edge_runtime.outbox.shedding import Shedding
from edge_runtime.wire.batch import Checkpoint, Head
from edge_runtime.wire.envelope import STREAMS

ACK_ROWS = 250
PAUSE_S = 0.0005  # between two transactions, for a control loop that waits for the file
COUNTERS = 1000


def ack(database: Database, heads: Heads, clock: Clock, chain: str, committed: Mapping[str, int]) -> int:
    """Deletes up to these numbers of `chain`, cut to the heads; how many went."""
    deleted = 0
    for stream, seq in committed.items():
        more = stream in STREAMS
        while more:
            count, more = _ack_step(database, heads, chain, stream, seq)
            deleted += count
            if more:
                clock.sleep(PAUSE_S)
    return deleted


def _ack_step(database: Database, heads: Heads, chain: str, stream: str, seq: int) -> tuple[int, bool]:
    """How many went, and whether there are more."""
    with database.transaction(durable=False) as db:
        if chain != database.chain:  # another file has taken the place of the one that was meant
            return 0, False
        acked = db.execute("SELECT acked FROM stream WHERE name = ?", (stream,)).fetchone()[0]
        newest = heads.load(stream)
        end = min(seq, newest.seq)
        upto = min(end, acked + ACK_ROWS)
        if upto <= acked:
            return 0, False
        if upto == newest.seq:
            db.execute(
                "UPDATE stream SET head = ?, hash = ?, stored = ?, "
                f"last = coalesce((SELECT data FROM event_{stream} WHERE seq = ?), last) WHERE name = ?",
                (newest.seq, newest.hash, newest.cum, newest.seq, stream),
            )
        where = f"FROM event_{stream} WHERE seq <= ?"
        count, size = db.execute(f"SELECT count(*), sum(length(data)) {where}", (upto,)).fetchone()
        db.execute(f"DELETE {where}", (upto,))
        db.execute(
            "UPDATE stream SET acked = ?, gone = gone + ?, gone_bytes = gone_bytes + ? WHERE name = ?",
            (upto, count, size or 0, stream),
        )
        return count, upto < end


class Checkpoints:
    """What this outbox says of itself, to be signed and sent."""

    def __init__(self, database: Database, heads: Heads, shedding: Shedding, clock: Clock) -> None:
        self._database, self._heads, self._shedding, self._clock = database, heads, shedding, clock
        self._counters: tuple[str, range] = ("", range(0))  # of which chain
        self._synced: tuple[dict[str, Head], int] = ({}, 0)

    def make(self, device: str, boot_id: str) -> Checkpoint:
        """What it names is on the disk by then, the records that nobody asked to be durable and the ranges given up, too: a
        power cut must not take back what the cloud has seen."""
        counter = self._next_counter()
        with self._database.reading() as db:
            newest = {stream: self._heads.load(stream) for stream in STREAMS}
            heads = {s: Head(n.seq, n.hash) for s, n in newest.items() if n.seq}
            floor = {s: lowest(self._database, s) or newest[s].seq + 1 for s in heads}
            shed = self._shedding.unconfirmed(db)
        told = heads, max((s.id for s in shed), default=0)
        if told != self._synced:
            self._database.sync()
            self._synced = told
        clock = self._clock
        return Checkpoint(
            device, self._database.chain, boot_id, counter,
            clock.monotonic_ns(), clock.wall_ns(), clock.wall_uncertainty_ns(), "", floor, heads, shed,
        )  # fmt: skip

    def _next_counter(self) -> int:
        """A restart skips the rest of its thousand, so that none comes twice."""
        chain, left = self._counters
        if chain != self._database.chain or not left:
            with self._database.transaction(durable=True):
                first = (self._database.get("counter") or 0) + 1
                self._database.put("counter", first + COUNTERS - 1)
                self._database.put("tick_s", self._database.tick_s(self._clock.monotonic_ns()))
            left = range(first, first + COUNTERS)
        self._counters = (self._database.chain, left[1:])
        return left[0]
