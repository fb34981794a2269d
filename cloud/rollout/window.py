"""Maintenance windows. Pure.

Where a time zone is known, the cloud itself gives ``stage`` outside of the window and ``activate`` within; the device asks again
right before it starts. Where none is known, the window goes to the device, whose own local time then decides.
A window whose end is before its start goes over midnight; one whose ends are equal is the whole day.
"""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo


def is_open(window: str, zone: str, now_ns: int) -> bool:
    if not window:
        return True
    local = datetime.fromtimestamp(now_ns // 10**9, UTC).astimezone(ZoneInfo(zone))
    start, end = map(_minutes, window.split("-"))
    now = 60 * local.hour + local.minute
    return start <= now < end if start < end else now >= start or now < end


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return 60 * int(hours) + int(minutes)
