"""On PostgreSQL the Events lie in one table for each month of the device's wall time.

A month's table is made when its first Event comes. Clocks that are far off (1970, or after 2100) share one table before and
one after, so that a broken clock makes neither an error nor a thousand tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, text

from cloud.store.database import lock

DAY_NS = 86_400_000_000_000
FIRST_YEAR, END_YEAR = 2020, 2100
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Month(NamedTuple):
    """A month, or with year 0 and 9999 everything before and after the years that have months."""

    year: int
    month: int

    @property
    def table(self) -> str:
        names = {0: "event_early", 9999: "event_late"}
        return names.get(self.year, f"event_{self.year}_{self.month:02d}")

    @property
    def number(self) -> int:
        """202611 for November 2026."""
        return 100 * self.year + self.month

    @property
    def bounds(self) -> tuple[str, str]:
        """From (included) and to (excluded), in nanoseconds since 1970, as SQL."""
        if self.year == 0:
            return "MINVALUE", str(_start_ns(FIRST_YEAR, 1))
        if self.year == 9999:
            return str(_start_ns(END_YEAR, 1)), "MAXVALUE"
        after = (self.year + 1, 1) if self.month == 12 else (self.year, self.month + 1)
        return str(_start_ns(self.year, self.month)), str(_start_ns(*after))


EARLY, LATE = Month(0, 1), Month(9999, 1)


def months_of(times_ns: Iterable[int]) -> set[Month]:
    return {_month_of_day(day) for day in {t // DAY_NS for t in times_ns}}


def month_of(time_ns: int) -> Month:
    return _month_of_day(time_ns // DAY_NS)


def _month_of_day(day: int) -> Month:
    if day < _start_ns(FIRST_YEAR, 1) // DAY_NS:
        return EARLY
    if day >= _start_ns(END_YEAR, 1) // DAY_NS:
        return LATE
    date = EPOCH + timedelta(days=day)
    return Month(date.year, date.month)


def _start_ns(year: int, month: int) -> int:
    return (datetime(year, month, 1, tzinfo=UTC) - EPOCH).days * DAY_NS


def make_partitions(connection: Connection, months: Collection[Month]) -> None:
    """Those that are not there yet, while nobody else writes."""
    lock(connection, (), alone=True)
    for month in sorted(months):
        start, end = month.bounds
        connection.execute(
            text(f"CREATE TABLE IF NOT EXISTS {month.table} PARTITION OF event FOR VALUES FROM ({start}) TO ({end})")
        )


def months_before(connection: Connection, time_ns: int) -> list[str]:
    """The tables of the months that ended before `time_ns`, the oldest first; that of all earlier years is not among them."""
    query = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'event'::regclass")
    there = set(connection.execute(query).scalars())
    return [m.table for m in _months(month_of(time_ns)) if m.table in there]


def _months(end: Month) -> Iterator[Month]:
    """All before `end`."""
    month = Month(FIRST_YEAR, 1)
    while month < end and month.year < END_YEAR:
        yield month
        month = Month(month.year + month.month // 12, month.month % 12 + 1)
