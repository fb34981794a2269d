"""Maintenance windows: may it start at this local time? Pure.

A window is local time, so it is only as good as the clock: where the clock cannot be right, the window counts as closed. It
cannot be right before the assignment was written or after it has run out, give or take `SLACK_NS`.
"""

from __future__ import annotations

import time

from edge_runtime.wire.assignment import Assignment

SLACK_NS = 10 * 60 * 10**9
DAY_MIN = 24 * 60


def closed(window: str, assignment: Assignment, wall_ns: int) -> str:
    """Why it may not start now; "" where it may. `window`: ``HH:MM-HH:MM``, also over midnight; "" any time."""
    if not window:
        return ""
    if not assignment.issued_ns - SLACK_NS <= wall_ns <= assignment.expires_ns + SLACK_NS:
        return f"waits for the window {window}, and for a clock that is right"
    now = time.localtime(wall_ns // 10**9)
    begin, end = (_minutes(text) for text in window.split("-"))
    passed = (now.tm_hour * 60 + now.tm_min - begin) % DAY_MIN
    if passed < ((end - begin) % DAY_MIN or DAY_MIN):
        return ""
    return f"waits for the window {window}"


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)
