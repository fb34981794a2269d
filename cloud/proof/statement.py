"""Make a proof from the store.

Counting is by sequence number: `produced` is the length of the range, which ends at the head that the device has signed;
each number in it is delivered, given up as the device has stated, or missing.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Engine, Row, func, select

from cloud.period import Period
from cloud.proof import SIGNED_PREFIX
from cloud.store import tables as t
from cloud.store.intervals import Given, Span
from edge_runtime.errors import UsageError
from edge_runtime.identity import public_text
from edge_runtime.wire.batch import read_checkpoint
from edge_runtime.wire.envelope import STREAMS, record_hash

VERSION = 1
PAGE = 1000
GAPS_LISTED = 1000
FINDINGS_LISTED = 100
SECOND_NS = 1_000_000_000


class Counted(NamedTuple):
    """`given`: policy → how many numbers. `gaps`: what is neither delivered nor given up."""

    delivered: int
    given: Counter[str]
    gaps: list[Span]


def iso(time_ns: int) -> str:
    """ISO 8601 in UTC, to the microsecond."""
    return datetime.fromtimestamp(time_ns / SECOND_NS, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def count(whole: Span, delivered: Sequence[Span], given: Sequence[tuple[str, Given]]) -> Counted:
    """Tell each number of `whole` apart. `delivered` in order; of two policies that gave up the same record the first in
    `given` counts. Pure."""
    found, gaps, total = Counter[str](), list[Span](), 0
    at = whole.first
    for span in [*delivered, Span(whole.last + 1, whole.last + 1)]:
        until = min(span.first - 1, whole.last)
        while at <= until:
            reach, policy = max(((g.reach(at), policy) for policy, g in given), default=(0, ""), key=lambda p: p[0])
            if reach >= at:
                found[policy] += min(reach, until) - at + 1
                at = min(reach, until) + 1
            else:
                ahead = [g.first if g.first > at else at + 1 for _, g in given if g.last > at]
                end = min([until, *(n - 1 for n in ahead)])
                gaps = (
                    [*gaps[:-1], Span(gaps[-1].first, end)]
                    if gaps and gaps[-1].last == at - 1
                    else [*gaps, Span(at, end)]
                )
                at = end + 1
        first, last = max(span.first, whole.first), min(span.last, whole.last)
        if first <= last:
            total += last - first + 1
            at = last + 1
    return Counted(total, found, gaps)


def proof_lines(
    engine: Engine, key: Ed25519PrivateKey, device: str, period: Period, now_ns: int, records: bool = False
) -> Iterator[str]:
    """The lines of a proof; UsageError where the device is unknown."""
    with engine.connect() as connection:
        statement = make_statement(connection, device, period, now_ns)
        line = json.dumps(statement, separators=(",", ":"))
        signature = base64.b64encode(key.sign(SIGNED_PREFIX + line.encode())).decode()
        yield line
        yield json.dumps({"key": public_text(key), "signature": signature}, separators=(",", ":"))
        if records:
            for chain in statement["chains"]:
                for stream, told in chain["streams"].items():
                    yield from _records(connection, (device, chain["chain"], stream), Span(told["first"], told["last"]))


def make_statement(connection: Connection, device: str, period: Period, now_ns: int) -> dict[str, Any]:
    query = select(t.chain).where(t.chain.c.device == device).order_by(t.chain.c.first_seen_ns)
    chains = [_chain(connection, row, period) for row in connection.execute(query)]
    if not chains:
        raise UsageError(
            f"no signed records of device {device!r} are stored; known devices: gudgeon cloud's page, /api/v1/devices"
        )
    streams = [s for c in chains for s in c["streams"].values()]
    query = select(t.finding).where(t.finding.c.device == device).order_by(t.finding.c.id.desc()).limit(FINDINGS_LISTED)
    findings = [dict(row) for row in connection.execute(query).mappings()]
    return {
        "v": VERSION,
        "device": device,
        "issued_at": iso(now_ns),
        "from": None if period.start_ns is None else iso(period.start_ns),
        "to": None if period.end_ns is None else iso(period.end_ns),
        **{name: sum(s[name] for s in streams) for name in ("produced", "delivered", "duplicates", "shed", "missing")},
        "chains": chains,
        "findings": findings,
    }


def _chain(connection: Connection, row: Row[Any], period: Period) -> dict[str, Any]:
    heads = read_checkpoint(row.checkpoint.encode()).heads
    streams = {}
    for stream in STREAMS:
        where = (row.device, row.chain, stream)
        top = connection.execute(select(func.max(t.span.c.last)).where(*_here(t.span, where))).scalar() or 0
        whole = _whole(connection, where, max(top, heads[stream].seq if stream in heads else 0), period)
        if whole is not None:
            streams[stream] = _stream(connection, where, whole)
    names = ("chain", "key", "checkpoint", "signature")
    return {name: getattr(row, name) for name in names} | {"streams": streams}


def _here(table: Any, where: tuple[str, str, str]) -> tuple[Any, ...]:
    return table.c.device == where[0], table.c.chain == where[1], table.c.stream == where[2]


def _inside(table: Any, where: tuple[str, str, str], whole: Span) -> tuple[Any, ...]:
    return *_here(table, where), table.c.last >= whole.first, table.c.first <= whole.last


def _whole(connection: Connection, where: tuple[str, str, str], head: int, period: Period) -> Span | None:
    """The numbers that the period covers: those of the records in it, and of the ranges given up that lie in it."""
    if not head:
        return None
    if period == Period():
        return Span(1, head)
    start, end = period.start_ns, period.end_ns
    e, s = t.event.c, t.shed.c
    times = [*([e.wall_ns >= start] if start is not None else []), *([e.wall_ns <= end] if end is not None else [])]
    found = list(connection.execute(select(func.min(e.seq), func.max(e.seq)).where(*_here(t.event, where), *times)))
    times = [
        *([s.since_wall_ns >= start] if start is not None else []),
        *([s.until_wall_ns <= end] if end is not None else []),
    ]
    found += connection.execute(select(func.min(s.first), func.max(s.last)).where(*_here(t.shed, where), *times))
    spans = [(first, last) for first, last in found if first is not None]
    return Span(min(a for a, _ in spans), max(b for _, b in spans)) if spans else None


def _stream(connection: Connection, where: tuple[str, str, str], whole: Span) -> dict[str, Any]:
    query = select(t.span.c.first, t.span.c.last).where(*_inside(t.span, where, whole)).order_by(t.span.c.first)
    spans = [Span(*row) for row in connection.execute(query)]
    # what was thinned first and evicted later was given up by the thinning
    given = select(t.shed).where(*_inside(t.shed, where, whole)).order_by(t.shed.c.every.desc(), t.shed.c.first)
    shed = list(connection.execute(given).mappings())
    counted = count(whole, spans, [(s["policy"], Given(s["first"], s["last"], s["every"])) for s in shed])
    repeats = connection.execute(select(t.stream_head.c.duplicates).where(*_here(t.stream_head, where))).scalar() or 0
    last = connection.execute(
        select(t.event.c.record).where(*_here(t.event, where), t.event.c.seq == whole.last)
    ).scalar()
    return {
        "first": whole.first,
        "last": whole.last,
        "produced": whole.last - whole.first + 1,
        "delivered": counted.delivered,
        "duplicates": repeats,
        "shed": counted.given.total(),
        "shed_by_policy": dict(counted.given),
        "ranges": [{k: v for k, v in s.items() if k not in ("device", "chain", "stream")} for s in shed],
        "missing": sum(g.last - g.first + 1 for g in counted.gaps),
        "gaps": counted.gaps[:GAPS_LISTED],
        "last_hash": record_hash(last.encode()) if last is not None else None,
    }


def _records(connection: Connection, where: tuple[str, str, str], whole: Span) -> Iterator[str]:
    after = whole.first - 1
    e = t.event.c
    while True:
        query = select(e.seq, e.record).where(*_here(t.event, where), e.seq > after, e.seq <= whole.last)
        page = list(connection.execute(query.order_by(e.seq).limit(PAGE)))
        yield from (record for _, record in page)
        if len(page) < PAGE:
            return
        after = page[-1][0]
