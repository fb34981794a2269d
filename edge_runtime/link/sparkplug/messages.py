"""What the node says: births, deaths and data, numbered by `seq` in the order in which they leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from edge_runtime import __version__
from edge_runtime.clock import Clock
from edge_runtime.link.sparkplug import mapping, payload
from edge_runtime.link.sparkplug.mapping import BD_SEQ, OWNERS, REBIRTH, Owner, Registry
from edge_runtime.link.sparkplug.payload import DataType, Metric
from edge_runtime.link.sparkplug.saved import Saved
from edge_runtime.link.sparkplug.session import after
from edge_runtime.link.sparkplug.topics import Names
from edge_runtime.wire.envelope import Event

MESSAGE_METRICS = 2000
MESSAGE_BYTES = 48 * 1024


class Messages:
    """`publish` takes a topic and a payload, QoS 0."""

    def __init__(
        self,
        names: Names,
        boot_id: str,
        registry: Registry,
        saved: Saved,
        publish: Callable[[str, bytes], None],
        clock: Clock,
    ) -> None:
        self._names, self._boot_id, self._registry, self._saved = names, boot_id, registry, saved
        self._publish, self._clock = publish, clock
        self._seq = 0
        self.last_birth = b""

    def death(self) -> bytes:
        """NDEATH: the bdSeq of this connection, nothing else, no seq."""
        now_ms = self._now_ms()
        return payload.encode([Metric(BD_SEQ, None, DataType.INT64, self._saved.bd_seq, now_ms)], now_ms, None)

    def birth(self, chain: str, values: Mapping[str, int], line_is_born: bool) -> None:
        """NBIRTH with seq 0, and DBIRTH where the line is there."""
        self._seq, now_ms = 0, self._now_ms()
        told: dict[str, payload.Value] = {BD_SEQ: self._saved.bd_seq, REBIRTH: False, "Properties/software": "gudgeon"}
        told |= {"Properties/version": __version__, "Properties/boot_id": self._boot_id, "Properties/chain": chain}
        for name, value in (told | dict(values)).items():
            self._registry.set(Owner.NODE, name, value, now_ms)
        self._saved.keep(self._registry.saved())
        self.last_birth = self._say("NBIRTH", self._registry.birth(Owner.NODE, now_ms))
        if line_is_born:
            self.line_birth()

    def line_birth(self) -> None:
        self._say("DBIRTH", self._registry.birth(Owner.LINE, self._now_ms()))

    def line_death(self) -> None:
        self._say("DDEATH", [])

    def values(self, values: Mapping[str, int]) -> None:
        """Values of the node that no Event carries; those that have not changed are not told."""
        now_ms = self._now_ms()
        changed = [self._registry.set(Owner.NODE, name, value, now_ms) for name, value in values.items()]
        if metrics := [m for m in changed if m is not None]:
            self._say("NDATA", metrics)

    def events(self, events: Iterable[Event], live: bool) -> int:
        """NDATA and DDATA of Events that the registry has learnt; the bytes that went out."""
        size_bytes = 0
        of: dict[Owner, list[list[Metric]]] = {owner: [] for owner in Owner}
        for event in events:
            of[OWNERS[event.stream][0]].append(self._registry.metrics(event, historical=not live))
        for message, owner in (("NDATA", Owner.NODE), ("DDATA", Owner.LINE)):
            for part in mapping.messages(of[owner], MESSAGE_METRICS, MESSAGE_BYTES):
                size_bytes += len(self._say(message, part))
        return size_bytes

    def _say(self, message: str, metrics: Sequence[Metric]) -> bytes:
        data = payload.encode(metrics, self._now_ms(), self._seq)
        self._seq = after(self._seq)
        self._publish(self._names.topic(message), data)
        return data

    def _now_ms(self) -> int:
        return max(0, self._clock.wall_ns() // 1_000_000)
