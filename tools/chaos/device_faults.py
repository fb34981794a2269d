"""Faults of the device itself: its disk and its wall clock."""

from __future__ import annotations

import datetime
import sqlite3
import time
from contextlib import closing

from edge_runtime.errors import ResourceError
from tools.chaos.evidence import Evidence
from tools.chaos.pair import Pair

YEAR_S = 365 * 86400.0
HOUR_S = 3600.0
FLUSH_DELAY_S = 0.25
REFUSAL_S = 20.0
#: how a refusal reads; SQLite tells a file system that turned read-only under it as an I/O error
FULL, READ_ONLY = ("disk is full", "No space left"), ("read-only", "readonly", "I/O error")


def disk_full(pair: Pair, seconds: float) -> Evidence:
    """The last byte of the device's disk is taken, and nothing leaves it, so that the queue has to grow; later it is given
    back."""
    pair.keeper["link"].stop()
    ballast_bytes = pair.disk.fill()
    refused = _refused(pair, FULL)
    pair.wait(seconds)
    pair.wait(REFUSAL_S, lambda: _refused(pair, FULL) > refused)
    facts = {"ballast_bytes": ballast_bytes, "appends_refused": _refused(pair, FULL) - refused}
    pair.disk.free()
    pair.keeper["link"].start()
    return Evidence(ballast_bytes > 0 and facts["appends_refused"] > 0, f"ENOSPC of a real {pair.disk.kind}", facts)


def read_only(pair: Pair, seconds: float) -> Evidence:
    """The kernel turns the file system read-only under the running device; then a restart on it, then writable again."""
    refused = _refused(pair, READ_ONLY)
    pair.disk.fail()
    facts: dict[str, object] = {"kernel_refuses_writes": pair.disk.refuses_writes()}
    pair.wait(seconds)
    pair.wait(REFUSAL_S, lambda: _refused(pair, READ_ONLY) > refused)
    facts["appends_refused"] = _refused(pair, READ_ONLY) - refused
    names = ("producer", "link")
    for name in names:
        pair.keeper[name].stop()
        pair.keeper[name].start()
    refusals = [pair.keeper[name].ends for name in names]
    pair.wait(REFUSAL_S, lambda: all(ResourceError.exit_code in ends for ends in refusals))
    facts["refused_starts"] = sum(ends.count(ResourceError.exit_code) for ends in refusals)
    for name in names:
        pair.keeper[name].stop()
    pair.disk.remount()
    for name in names:
        pair.keeper[name].start()
    happened = all(facts.values())
    return Evidence(happened, f"{pair.disk.kind}, aborted by the kernel", facts)


def _refused(pair: Pair, words: tuple[str, ...]) -> int:
    return sum(any(word in reason for word in words) for reason in pair.produced()[1])


def clock_jumps(pair: Pair, seconds: float) -> Evidence:
    """1970, a year ahead, a year behind, then a leap back of an hour, then right again; under running processes."""
    offsets = {"1970": -time.time() + 60.0, "year_ahead": YEAR_S, "year_behind": -YEAR_S, "hour_back": -HOUR_S}
    for offset_s in offsets.values():
        pair.shim.set_clock_offset_s(offset_s)
        pair.wait(seconds / len(offsets))
    pair.shim.set_clock_offset_s(0.0)
    pair.wait(REFUSAL_S, lambda: set(_years(pair)) >= _expected_years())
    reads, years = pair.shim.wrong_clock_reads, _years(pair)
    facts = {"wrong_clock_reads": reads, "rows_by_year": years}
    happened = reads > 0 and set(years) >= _expected_years()
    return Evidence(happened, "a shim under the device's processes that steps their wall clock", facts)


def tls_in_1970(pair: Pair, seconds: float) -> Evidence:
    """The device wakes up in 1970 and has to make its TLS connection anew: to OpenSSL the certificate is not valid yet."""
    link = pair.keeper["link"]
    link.stop()
    pair.shim.set_clock_offset_s(-time.time() + 60.0)
    link.start()
    before = pair.arrived()
    pair.wait(max(seconds, REFUSAL_S), lambda: pair.arrived() > before)
    pair.wait(seconds)
    facts = {"rows_during": pair.arrived() - before, "wrong_clock_reads": pair.shim.wrong_clock_reads}
    pair.shim.set_clock_offset_s(0.0)
    happened = facts["wrong_clock_reads"] > 0 and 1970 in _years(pair)
    return Evidence(happened, "a shim under the device's processes; Mosquitto with a real certificate", facts)


def _expected_years() -> set[int]:
    now = datetime.datetime.now(datetime.UTC)
    year = datetime.timedelta(seconds=YEAR_S)
    return {1970, (now + year).year, (now - year).year, now.year}


def _years(pair: Pair) -> dict[int, int]:
    """Year → rows of the cloud whose device said that it was that year."""
    with closing(sqlite3.connect(f"file:{pair.database}?mode=ro", uri=True)) as connection:
        year = "CAST(strftime('%Y', wall_ns / 1000000000, 'unixepoch') AS INTEGER)"
        rows = connection.execute(f"SELECT {year}, count(*) FROM event GROUP BY 1").fetchall()  # noqa: S608
    return {int(y): int(n) for y, n in rows}


def slow_disk(pair: Pair, seconds: float) -> Evidence:
    """Each flush of the device waits a quarter of a second."""
    before = pair.arrived()
    pair.shim.set_flush_delay_s(FLUSH_DELAY_S)
    pair.last(seconds, lambda: pair.shim.slow_flushes > 0)
    facts = {"slow_flushes": pair.shim.slow_flushes, "rows_during": pair.arrived() - before}
    pair.shim.set_flush_delay_s(0.0)
    by = f"a shim that makes each fsync and fdatasync {FLUSH_DELAY_S:g} s slower"
    return Evidence(facts["slow_flushes"] > 0, by, facts)
