"""The device's access to its broker: as `mqtt_access`, and certificates are judged at the `TimeFloor` while the clock is
behind it."""

from __future__ import annotations

import ssl

from edge_runtime.link.time_floor import TimeFloor, judge_at
from edge_runtime.mqtt_access import Access, BrokerAccess, tls_context


class FloorAccess(Access):
    def __init__(self, broker: BrokerAccess, floor: TimeFloor) -> None:
        self._floor = floor
        super().__init__(broker)

    def _load(self) -> tuple[ssl.SSLContext | None, ...]:
        by_clock, by_floor = tls_context(self._broker), tls_context(self._broker)
        if by_floor is not None:
            judge_at(by_floor, self._floor.now_ns)
        return by_clock, by_floor

    def context(self) -> ssl.SSLContext | None:
        by_clock = super().context()
        return self._contexts[1] if self._floor.clock_is_behind else by_clock
