"""What may go out now: a token bucket in bytes on the wire, shared by weight. Pure: times are handed in.

    urgent   alarms and faults: never behind the bucket; they may overdraw it, and the others pay
    live     what else was appended since the connection stands
    backlog  what was there before

Live and backlog share the limited line as `1 - backlog_share` to `backlog_share` while both have something to send; what one
leaves, the other takes (start-time fair queueing: the lane that has sent less for its weight is next). Without a limit
live goes first and the backlog fills what is left.
"""

from __future__ import annotations

from dataclasses import dataclass

BURST_S = 1.0
LEAST_BURST_BYTES = 4096
BATCH_S = 0.5  # how long one batch of the limited line may take, so that the next alarm does not wait behind it
LEAST_BATCH_BYTES = 2048

TCP_SEGMENT_BYTES = 1448
TCP_IP_HEADER_BYTES = 52  # IPv4 and TCP with time stamps
TLS_RECORD_BYTES = 16 * 1024
TLS_HEADER_BYTES = 22  # TLS 1.3; 29 with TLS 1.2 and AES-GCM
PUBLISH_BYTES = 8  # fixed header with four bytes of length, id of the message, no properties


@dataclass(frozen=True)
class LineSettings:
    """How the uplink may use its line. `rate_bytes_per_s` 0: no limit. `metered_priority`: while `metered`, only classes
    up to this priority are sent."""

    rate_bytes_per_s: int = 0
    backlog_share: float = 0.5
    metered: bool = False
    metered_priority: int = 2


class Bucket:
    """`level` bytes (or whatever is counted) may go at once; below zero the line is in debt."""

    def __init__(self, rate_per_s: float, now_ns: int, least_burst: float = LEAST_BURST_BYTES) -> None:
        self.rate_per_s, self._at_ns = rate_per_s, now_ns
        self._burst = max(least_burst, rate_per_s * BURST_S)
        self._level = self._burst

    def level(self, now_ns: int) -> float:
        """Time that seems to run backwards fills nothing."""
        if now_ns > self._at_ns:
            gained = (now_ns - self._at_ns) * self.rate_per_s / 1e9
            self._level = min(self._burst, self._level + gained)
            self._at_ns = now_ns
        return self._level

    def take(self, size: int, now_ns: int) -> None:
        """More than there is may be taken, as one message cannot be sent in halves: nothing else goes until it is paid."""
        self._level = self.level(now_ns) - size

    def wait_s(self, now_ns: int) -> float:
        """How long until one may go."""
        return max(0.0, (1.0 - self.level(now_ns)) / self.rate_per_s)


class Pace:
    """The bucket, and whose turn it is."""

    def __init__(self, settings: LineSettings, now_ns: int) -> None:
        self._spent = {"live": 0.0, "backlog": 0.0}
        self.set(settings, now_ns)

    def set(self, settings: LineSettings, now_ns: int) -> None:
        """Other settings from now on; a debt stays where the rate does."""
        old = getattr(self, "_bucket", None)
        rate = settings.rate_bytes_per_s
        self.settings = settings
        self._weight = {"live": 1.0 - settings.backlog_share, "backlog": settings.backlog_share}
        self._bucket: Bucket | None = (
            (old if old and old.rate_per_s == rate else Bucket(rate, now_ns)) if rate else None
        )

    @property
    def limited(self) -> bool:
        return self._bucket is not None

    def open(self, now_ns: int) -> bool:
        """May anything that is not urgent go?"""
        return self._bucket is None or self._bucket.level(now_ns) >= 1

    def wait_s(self, now_ns: int) -> float:
        return 0.0 if self._bucket is None else self._bucket.wait_s(now_ns)

    def batch_bytes(self, most: int) -> int:
        """How large a batch may be before it is compressed."""
        if self._bucket is None:
            return most
        return min(most, max(LEAST_BATCH_BYTES, round(self._bucket.rate_per_s * BATCH_S)))

    def order(self) -> tuple[str, str]:
        """Which lane is asked first."""
        if self._bucket is None or self._spent["live"] <= self._spent["backlog"]:
            return ("live", "backlog")
        return ("backlog", "live")

    def nothing_from(self, lane: str) -> None:
        """A lane that has nothing to send saves nothing up: it goes on from where the other one is."""
        other = "backlog" if lane == "live" else "live"
        self._spent[lane] = max(self._spent[lane], self._spent[other])

    def sent(self, lane: str, size_bytes: int, now_ns: int) -> None:
        if self._bucket is None:
            return
        self._bucket.take(size_bytes, now_ns)
        if lane in self._spent:
            self._spent[lane] += size_bytes / self._weight[lane]


def wire_bytes(payload_bytes: int, topic_bytes: int, tls: bool) -> int:
    """What one PUBLISH takes on the wire, with the headers of MQTT, TLS, TCP and IP; retransmissions are not in it."""
    size = payload_bytes + topic_bytes + 2 + PUBLISH_BYTES
    if tls:
        size += -(-size // TLS_RECORD_BYTES) * TLS_HEADER_BYTES
    return size + -(-size // TCP_SEGMENT_BYTES) * TCP_IP_HEADER_BYTES
