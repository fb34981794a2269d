"""What every carrier of the outbox needs of it, whether it speaks to our cloud or to a Sparkplug host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from edge_runtime.wire.batch import Checkpoint
from edge_runtime.wire.envelope import Record


class Waiting(Protocol):
    @property
    def chain(self) -> str: ...
    def pending(
        self,
        limit_events: int = ...,
        limit_bytes: int = ...,
        after: Mapping[str, int] | None = ...,
        streams: Sequence[str] | None = ...,
        upto: Mapping[str, int] | None = ...,
    ) -> list[Record]: ...
    def ack(self, committed: Mapping[str, int]) -> int: ...
    def checkpoint(self) -> Checkpoint: ...
    def head(self, stream: str) -> int: ...
    def append(self, stream: str, kind: str, body: Mapping[str, Any]) -> Any: ...
