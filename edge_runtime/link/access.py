"""The device's access to its broker: as `mqtt_access`, and certificates are judged at the `TimeFloor` while the clock is
behind it."""

from __future__ import annotations

import ssl

from edge_runtime.link.time_floor import TimeFloor, judge_at
from edge_runtime.mqtt_access import Access, BrokerAccess, tls_context


class FloorAccess(Access):
    def __init__(self, broker: BrokerAccess, floor: TimeFloor) -> None:
        super().__init__(broker)
        self._floor, self._floor_context = floor, tls_context(broker)
        if self._floor_context is not None:
            judge_at(self._floor_context, floor.now_ns)

    def context(self) -> ssl.SSLContext | None:
        return self._floor_context if self._floor.clock_is_behind else super().context()
