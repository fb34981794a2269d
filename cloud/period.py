"""A period of time as people write it: ISO 8601, without a zone it is UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from edge_runtime.errors import UsageError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: what 64 bits of nanoseconds hold, in whole years
FIRST, END = datetime(1678, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)


class Period(NamedTuple):
    """In ns since 1970, the end not included; None: open."""

    start_ns: int | None = None
    end_ns: int | None = None


def parse_time(text: str) -> int:
    """ISO 8601 to ns; UsageError otherwise."""
    try:
        found = datetime.fromisoformat(text)
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        if not FIRST <= found < END:
            raise ValueError("out of range")
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is no time; expected ISO 8601, such as 2026-11-24T08:00:00Z") from error
    return (found - EPOCH) // timedelta(microseconds=1) * 1000


def parse_period(start: str | None, end: str | None) -> Period:
    found = Period(*(None if text is None else parse_time(text) for text in (start, end)))
    if found.start_ns is not None and found.end_ns is not None and found.end_ns <= found.start_ns:
        raise UsageError(f"the period from {start} to {end} is empty; expected a time after {start}")
    return found
