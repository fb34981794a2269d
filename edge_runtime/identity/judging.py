"""Certificates of the cloud are judged at the `TimeFloor` while the device's clock is behind it."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from edge_runtime.link.time_floor import TimeFloor, judge_at


def judge(floor: TimeFloor) -> Callable[[ssl.SSLContext], None]:
    def prepare(context: ssl.SSLContext) -> None:
        if floor.clock_is_behind:
            judge_at(context, floor.now_ns)

    return prepare
