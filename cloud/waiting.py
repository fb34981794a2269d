"""Which of the messages that wait are committed together, and what the broker may be told. Pure: times are handed in.

- Small batches are live ones: they go before the large ones of a backlog, and as long as they come commits are kept
  short, so that a live record never waits for a thousand old ones.
- The rest goes device by device, around in an order that all workers share, from where each has begun by chance: a commit is
  about few devices, and so two workers seldom wait for each other. What one device sent keeps its order.
- A connection that is new is told before all that came over it.
- MQTT wants PUBACKs in the order of the messages (MQTT 5.0, 4.6): one that is done waits for those before it.
"""

from __future__ import annotations

import random
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cloud.messages import Batch, Connected, Item, Status

LIVE_RECORDS = 20
LIVE_S = 1.0
SHORT_RECORDS = 200
LONG_RECORDS = 4000
COMMIT_MESSAGES = 256
PLACES = 2**32


@dataclass(eq=False)
class Message:
    """`via`, `mid`, `qos`: for the PUBACK: the client that it came by, its number; `qos` 0 wants none. `received_ns`: wall time
    of its arrival."""

    item: Item
    via: Any = None
    mid: int = 0
    qos: int = 0
    received_ns: int = 0
    done: bool = False

    @cached_property
    def place(self) -> int:
        """Where its device stands in the order that all workers share."""
        return zlib.crc32(self.item.place.device.encode()) if isinstance(self.item, Batch | Status) else 0

    @property
    def records(self) -> int:
        return len(self.item.events) if isinstance(self.item, Batch) else 0

    @property
    def is_live(self) -> bool:
        return isinstance(self.item, Batch) and self.records <= LIVE_RECORDS


class Waiting:
    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._unconfirmed: deque[Message] = deque()
        self._live_until_s = 0.0
        self._last = random.randrange(PLACES)

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: Message) -> None:
        self._messages.append(message)
        if message.qos:
            self._unconfirmed.append(message)

    def take(self, now_s: float) -> list[Message]:
        """Those of the next commit; at least one if there is any."""
        if any(m.is_live for m in self._messages):
            self._live_until_s = now_s + LIVE_S
        taken = self._chosen(SHORT_RECORDS if now_s < self._live_until_s else LONG_RECORDS)
        chosen = set(map(id, taken))
        self._messages = [m for m in self._messages if id(m) not in chosen]
        return taken

    def _chosen(self, most_records: int) -> list[Message]:
        new = next((i for i, m in enumerate(self._messages) if isinstance(m.item, Connected)), None)
        if new is not None:
            return self._messages[: new + 1]
        records, taken = 0, list[Message]()
        for message in sorted(self._messages, key=self._turn)[:COMMIT_MESSAGES]:
            records += message.records
            if taken and records > most_records:
                break
            taken.append(message)
        if not taken[-1].is_live:
            self._last = taken[-1].place
        return taken

    def _turn(self, message: Message) -> int:
        """Live ones first, then device by device, from behind the last one of the commit before."""
        return -1 if message.is_live else (message.place - self._last - 1) % PLACES

    def confirmed(self) -> Iterator[Message]:
        """What the broker may be told now, in order; each is told once."""
        while self._unconfirmed and self._unconfirmed[0].done:
            yield self._unconfirmed.popleft()
