"""Events to Parquet in bounded memory: read page by page, written as one row group after the other.

- A file has every Event that was settled when it was begun (`store.database.settled`), in the order of arrival.
- A row group has at most `GROUP_ROWS` rows and about `GROUP_BYTES`.
- The stream `decision` has its columns beside the body (`store.projection`).
"""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Engine, func, select

from cloud.messages import json_text
from cloud.period import Period
from cloud.store import tables as t
from cloud.store.database import settled
from cloud.store.projection import FIELDS, STREAM
from cloud.store.queries import Row, has_device, within
from edge_runtime.errors import UsageError
from edge_runtime.wire.envelope import STREAMS

PAGE_ROWS = 500
IDS_SQLITE = 4_000_000  # 8 bytes each
IDS_POSTGRESQL = 100_000  # as the driver holds a whole answer
GROUP_ROWS = 20_000
GROUP_BYTES = 8 * 1024 * 1024
TIME = pa.timestamp("ns", tz="UTC")

#: column → its type, and the column of the store that it comes from
COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("device", pa.string(), "device"),
    ("chain", pa.string(), "chain"),
    ("stream", pa.string(), "stream"),
    ("seq", pa.int64(), "seq"),
    ("kind", pa.string(), "kind"),
    ("time", TIME, "time_ns"),
    ("time_source", pa.string(), "time_source"),
    ("wall", TIME, "wall_ns"),
    ("mono_ns", pa.int64(), "mono_ns"),
    ("wall_uncertainty_ns", pa.int64(), "wall_uncertainty_ns"),
    ("boot_id", pa.string(), "boot_id"),
    ("received", TIME, "received_ns"),
    ("body", pa.string(), "body"),
)
#: what a file of the stream `decision` has beside them: the columns of `projection.FIELDS`
NUMBERS = {"score": pa.float64(), "result": pa.int32()} | dict.fromkeys(
    ("part_epoch", "part_seq", "serial", "lot", "recipe", "latency_us"), pa.int64()
)
DECISION_COLUMNS = tuple((name, NUMBERS.get(name, pa.string()), name) for name in FIELDS)


class Wanted(NamedTuple):
    """None: every device, every stream."""

    device: str | None = None
    stream: str | None = None
    period: Period = Period()

    def check(self, engine: Engine) -> None:
        """UsageError where it can only be a mistake."""
        if self.stream is not None and self.stream not in STREAMS:
            raise UsageError(f"no stream {self.stream!r}; expected one of {', '.join(STREAMS)}")
        if self.device is not None and not has_device(engine, self.device):
            raise UsageError(f"no device {self.device!r} ever sent anything; see /api/v1/devices")


def columns(wanted: Wanted) -> tuple[tuple[str, pa.DataType, str], ...]:
    return (*COLUMNS, *DECISION_COLUMNS) if wanted.stream == STREAM else COLUMNS


def ids(engine: Engine, wanted: Wanted) -> Iterator[array[int]]:
    """The rows, range after range of ids. Each is one short statement, whatever index serves it: no transaction stays open
    for as long as a reader takes."""
    e = t.event.c
    equal = {e.device: wanted.device, e.stream: wanted.stream}
    where = [column == value for column, value in equal.items() if value is not None] + within(wanted.period)
    with engine.connect() as connection:
        upto = settled(connection)
        at_once = IDS_SQLITE if upto is None else IDS_POSTGRESQL
        if upto is None:
            upto = int(connection.execute(select(func.max(e.id))).scalar() or 0)
    for low in range(0, upto, at_once):
        query = select(e.id).where(e.id > low, e.id <= min(low + at_once, upto), *where).order_by(e.id)
        with engine.connect() as connection:
            found = array("q", connection.execute(query).scalars())
        if found:
            yield found


def pages(engine: Engine, wanted: Wanted) -> Iterator[Sequence[Row]]:
    e = t.event.c
    for found in ids(engine, wanted):
        for first in range(0, len(found), PAGE_ROWS):
            query = select(t.event).where(e.id.in_(found[first : first + PAGE_ROWS].tolist())).order_by(e.id)
            with engine.connect() as connection:
                rows = [dict(row) for row in connection.execute(query).mappings()]
            yield rows


def with_body(row: Row, flat: bool) -> Row:
    body = json.loads(row["record"])["body"]
    projected = {name: read(body.get(name)) for name, read in FIELDS.items()} if flat else {}
    return {**projected, **row, "body": json_text(body)}


class _Sink(io.RawIOBase):
    """What was written since it was last taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def take(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def batch_of(rows: Sequence[Row], wanted: Wanted, schema: pa.Schema) -> pa.RecordBatch:
    found = [with_body(row, wanted.stream == STREAM) for row in rows]
    arrays = [pa.array([row[source] for row in found], kind) for _, kind, source in columns(wanted)]
    return pa.record_batch(arrays, schema=schema)


def groups(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """What becomes one row group each."""
    group: list[pa.RecordBatch] = []
    rows = size_bytes = 0
    for batch in batches:
        group.append(batch)
        rows, size_bytes = rows + batch.num_rows, size_bytes + batch.nbytes
        if rows > GROUP_ROWS - PAGE_ROWS or size_bytes >= GROUP_BYTES:
            yield group
            group, rows, size_bytes = [], 0, 0
    if group:
        yield group


def parquet_bytes(engine: Engine, wanted: Wanted) -> Iterator[bytes]:
    """The pieces of the file."""
    schema = pa.schema([(name, kind) for name, kind, _ in columns(wanted)])
    sink = _Sink()
    batches = (batch_of(page, wanted, schema) for page in pages(engine, wanted))
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="zstd") as writer:
        for group in groups(batches):
            writer.write_table(pa.Table.from_batches(group))
            yield sink.take()
    yield sink.take()
