"""The `[sparkplug]` section of device.toml."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.link.sparkplug.topics import Names, check_id
from edge_runtime.wire.topics import Place


@dataclass(frozen=True)
class SparkplugSection:
    """Empty names follow from `[device]`: group = site, edge node = id, line = line. `primary_host` "": data flow without
    waiting for anyone, and what the broker has taken counts as delivered."""

    group_id: str = ""
    edge_node_id: str = ""
    device_id: str = ""
    primary_host: str = ""
    confirm_after_s: float = 5.0
    line_timeout_s: float = 10.0
    batch_records: int = 100
    backlog_records_per_s: float = 200.0
    backlog_bytes_per_s: float = 131072.0
    max_metrics: int = 1000

    def __post_init__(self) -> None:
        for name in ("group_id", "edge_node_id", "device_id", "primary_host"):
            if getattr(self, name):
                check_id(name, getattr(self, name))
        if not 1 <= self.batch_records <= 500:
            raise ValueError(f"batch_records = {self.batch_records}: expected 1 to 500")
        if not 100 <= self.max_metrics <= 10_000:
            raise ValueError(f"max_metrics = {self.max_metrics}: expected 100 to 10000")
        for name in ("backlog_records_per_s", "backlog_bytes_per_s", "confirm_after_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected 0 (no limit) or more")
        if self.line_timeout_s < 2:
            raise ValueError(
                f"line_timeout_s = {self.line_timeout_s}: expected at least 2; the line speaks every second"
            )

    def names(self, place: Place) -> Names:
        return Names(self.group_id or place.site, self.edge_node_id or place.device, self.device_id or place.line)
