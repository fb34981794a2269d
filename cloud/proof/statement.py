"""Make a proof from the store.

Counting is by sequence number: `produced` is the length of the range, which ends at the head that the device has signed;
each number in it is delivered, given up as the device has stated, or missing. Of what was delivered, `pruned` is no longer
stored, because the store keeps it for so long only.

A period is as exact as its borders can be known: it reaches from behind the last record known to be before it to ahead of the
first known to be after it, so that nothing that was lost or given up at its borders is left out.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Engine, Row, Select, func, select

from cloud.period import Period
from cloud.proof import SIGNED_PREFIX
from cloud.store import tables as t
from cloud.store.database import here
from cloud.store.intervals import Given, Span, merged
from edge_runtime.errors import UsageError
from edge_runtime.identity import public_text
from edge_runtime.wire.batch import read_checkpoint
from edge_runtime.wire.envelope import STREAMS, record_hash

VERSION = 1
TOTALS = ("produced", "delivered", "duplicates", "shed", "missing", "pruned")
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
    chains = [_chain(connection, row, period, now_ns) for row in connection.execute(query)]
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
        **{name: sum(s[name] for s in streams) for name in TOTALS},
        "chains": chains,
        "findings": findings,
    }


def _chain(connection: Connection, row: Row[Any], period: Period, now_ns: int) -> dict[str, Any]:
    heads = read_checkpoint(row.checkpoint.encode()).heads
    streams = {}
    for stream in STREAMS:
        where = (row.device, row.chain, stream)
        top = connection.execute(select(func.max(t.span.c.last)).where(*here(t.span, where))).scalar() or 0
        whole = _whole(connection, where, max(top, heads[stream].seq if stream in heads else 0), period, now_ns)
        if whole is not None:
            streams[stream] = _stream(connection, where, whole)
    names = ("chain", "key", "checkpoint", "signature")
    return {name: getattr(row, name) for name in names} | {"streams": streams}


def _inside(table: Any, where: tuple[str, str, str], whole: Span) -> tuple[Any, ...]:
    return *here(table, where), table.c.last >= whole.first, table.c.first <= whole.last


def _whole(connection: Connection, where: tuple[str, str, str], head: int, period: Period, now_ns: int) -> Span | None:
    """The numbers that may lie in the period."""
    start, end = period
    if not head or (start is not None and start >= now_ns):
        return None
    inside = _known(connection, where, period)
    first = 1 if start is None else _before(connection, where, start, inside) + 1
    last = head if end is None else _after(connection, where, end, inside or Span(first, first - 1), head) - 1
    return Span(first, last) if first <= last else None


def _known(connection: Connection, where: tuple[str, str, str], period: Period) -> Span | None:
    """From the first to the last record that is known to be in the period; what was pruned goes by the month."""
    e, p = t.event.c, t.pruned.c
    queries = (
        select(func.min(e.seq), func.max(e.seq)).where(*here(t.event, where), *_times(e.time_ns, e.time_ns, period)),
        select(func.min(p.first), func.max(p.last)).where(
            *here(t.pruned, where), *_times(p.since_ns, p.until_ns, period)
        ),
    )
    found = [row for query in queries for row in connection.execute(query) if row[0] is not None]
    return Span(min(a for a, _ in found), max(b for _, b in found)) if found else None


def _times(since: Any, until: Any, period: Period) -> list[Any]:
    """What overlaps with the period."""
    start, end = period
    return [*([until >= start] if start is not None else []), *([since < end] if end is not None else [])]


def _before(connection: Connection, where: tuple[str, str, str], start_ns: int, inside: Span | None) -> int:
    """The highest number known to lie before the period."""
    e, p, s, d = t.event.c, t.pruned.c, t.shed.c, t.span.c
    limit = inside.first if inside else 2**62
    shed = select(func.max(s.last)).where(*here(t.shed, where), s.until_wall_ns < start_ns, s.last < limit)
    if inside:
        near = select(d.last).where(*here(t.span, where), d.first < limit).order_by(d.first.desc()).limit(1)
        queries = [near, shed]
    else:
        pruned = select(func.max(p.last)).where(*here(t.pruned, where), p.until_ns < start_ns)
        queries = [select(func.max(e.seq)).where(*here(t.event, where), e.time_ns < start_ns), pruned, shed]
    return max(min(int(connection.execute(query).scalar() or 0), limit - 1) for query in queries)


def _after(connection: Connection, where: tuple[str, str, str], end_ns: int, inside: Span, head: int) -> int:
    """The lowest number behind `inside` known to lie after the period; the one after the head where none does."""
    e, p, s, d = t.event.c, t.pruned.c, t.shed.c, t.span.c
    above = inside.last
    queries = [select(func.min(s.first)).where(*here(t.shed, where), s.since_wall_ns >= end_ns, s.first > above)]
    if inside.first <= above:
        queries.append(select(d.first).where(*here(t.span, where), d.last > above).order_by(d.first).limit(1))
    else:
        queries.append(select(func.min(e.seq)).where(*here(t.event, where), e.time_ns >= end_ns, e.seq > above))
        queries.append(select(func.min(p.first)).where(*here(t.pruned, where), p.since_ns >= end_ns, p.first > above))
    found: list[int] = [n for query in queries if (n := connection.execute(query).scalar()) is not None]
    return min([head + 1, *(max(n, above + 1) for n in found)])


def _stream(connection: Connection, where: tuple[str, str, str], whole: Span) -> dict[str, Any]:
    query = select(t.span.c.first, t.span.c.last).where(*_inside(t.span, where, whole)).order_by(t.span.c.first)
    spans = [Span(*row) for row in connection.execute(query)]
    # what was thinned first and evicted later was given up by the thinning
    given = select(t.shed).where(*_inside(t.shed, where, whole)).order_by(t.shed.c.every.desc(), t.shed.c.first)
    shed = list(connection.execute(given).mappings())
    counted = count(whole, spans, [(s["policy"], Given(s["first"], s["last"], s["every"])) for s in shed])
    repeats = connection.execute(select(t.stream_head.c.duplicates).where(*here(t.stream_head, where))).scalar() or 0
    pruned = [dict(row) for row in connection.execute(_pruned(where, whole)).mappings()]
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
        "last_hash": _last_hash(connection, where, whole.last, pruned),
        "pruned": _gone(connection, where, whole, spans, pruned) if pruned else 0,
        "pruned_ranges": pruned,
    }


def _pruned(where: tuple[str, str, str], whole: Span) -> Select[Any]:
    p = t.pruned.c
    columns = (p[name] for name in ("first", "last", "last_hash", "since_ns", "until_ns"))
    return select(*columns).where(*_inside(t.pruned, where, whole)).order_by(p.first)


def _gone(
    connection: Connection,
    where: tuple[str, str, str],
    whole: Span,
    spans: Sequence[Span],
    pruned: Sequence[Mapping[str, Any]],
) -> int:
    """How many of the delivered records are no longer stored: those of the ranges, without what of these is still there."""
    e = t.event.c
    gone = 0
    for r in merged(Span(max(p["first"], whole.first), min(p["last"], whole.last)) for p in pruned):
        there = select(func.count()).where(*here(t.event, where), e.seq >= r.first, e.seq <= r.last)
        gone += count(r, spans, ()).delivered - int(connection.execute(there).scalar_one())
    return gone


def _last_hash(
    connection: Connection, where: tuple[str, str, str], last: int, pruned: Sequence[Mapping[str, Any]]
) -> str | None:
    query = select(t.event.c.record).where(*here(t.event, where), t.event.c.seq == last)
    record = connection.execute(query).scalar()
    if record is not None:
        return record_hash(record.encode())
    return next((str(p["last_hash"]) for p in pruned if p["last"] == last), None)


def _records(connection: Connection, where: tuple[str, str, str], whole: Span) -> Iterator[str]:
    after = whole.first - 1
    e = t.event.c
    while True:
        query = select(e.seq, e.record).where(*here(t.event, where), e.seq > after, e.seq <= whole.last)
        page = list(connection.execute(query.order_by(e.seq).limit(PAGE)))
        yield from (record for _, record in page)
        if len(page) < PAGE:
            return
        after = page[-1][0]
