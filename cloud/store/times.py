"""When an Event happened, as far as the cloud can tell. What the device's clock said is kept beside it.

device    the device's clock was set by somebody who knows the time: its own wall time
boot      another record of the same boot was; monotonic time ties the two together
contact   the device never knew; its monotonic time when it was heard, and the cloud's clock then
unknown   a boot that was over before it was ever heard: what its clock said

When more becomes known of a boot, what came from it earlier is stamped again. No clock changes the order of a stream:
that is the sequence number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sqlalchemy import Connection, update

from cloud.messages import Batch, plain_text
from cloud.store import tables as t
from cloud.store.database import merge, newest, statement, wanted

SECOND_NS = 1_000_000_000
#: a device's clock that claims to be better than this is believed
TRUSTED_NS = 10 * SECOND_NS
#: a message that was under way for longer has been sent again meanwhile
CONTACT_NS = 10 * SECOND_NS
#: what is stamped already is not touched for less
RESTAMP_NS = SECOND_NS
RANK = {"contact": 0, "boot": 1}


class Stamped(Protocol):
    """An Event, or the header of a batch."""

    @property
    def boot_id(self) -> str: ...
    @property
    def mono_ns(self) -> int: ...
    @property
    def wall_ns(self) -> int: ...
    @property
    def wall_uncertainty_ns(self) -> int | None: ...


#: `time_ns`, and its source
Time = tuple[int, str]


class BootClock(NamedTuple):
    """`offset_ns` + monotonic time = time of day."""

    offset_ns: int
    uncertainty_ns: int
    source: str


KEEP_CLOCK = merge(t.boot_clock, ("device", "boot_id"), **newest(*BootClock._fields))


@dataclass(frozen=True)
class Clocks:
    """What is known of the boots of one device."""

    boots: Mapping[str, BootClock]

    def time(self, e: Stamped) -> Time:
        if trusted(e):
            return e.wall_ns, "device"
        clock = self.boots.get(plain_text(e.boot_id))
        return (e.mono_ns + clock.offset_ns, clock.source) if clock else (e.wall_ns, "unknown")


def trusted(e: Stamped) -> bool:
    uncertainty_ns = e.wall_uncertainty_ns
    return uncertainty_ns is not None and 0 <= uncertainty_ns <= TRUSTED_NS


def better(new: BootClock, old: BootClock | None) -> bool:
    """Is `new` worth keeping? A shorter way makes a contact more exact, and never a later one."""
    if old is None or RANK[new.source] != RANK[old.source]:
        return old is None or RANK[new.source] > RANK[old.source]
    if new.source == "contact":
        return new.offset_ns < old.offset_ns
    return new.uncertainty_ns < old.uncertainty_ns // 2


def told(batches: Sequence[Batch], now_ns: int) -> Iterator[tuple[tuple[str, str], BootClock]]:
    """What the batches tell of the boots, by (device, boot), that they name."""
    for batch in batches:
        c = batch.checkpoint
        if not trusted(c):
            yield (c.device, plain_text(c.boot_id)), BootClock(now_ns - c.mono_ns, CONTACT_NS, "contact")
        stamped: list[Stamped] = [c, *batch.events[:1], *batch.events[-1:]]
        for e in stamped:
            if trusted(e):
                clock = BootClock(e.wall_ns - e.mono_ns, e.wall_uncertainty_ns or 0, "boot")
                yield (c.device, plain_text(e.boot_id)), clock


def learn(connection: Connection, batches: Sequence[Batch], now_ns: int) -> dict[str, Clocks]:
    """Keep what the batches tell, and stamp again what it changes; what is then known, by device."""
    found = list(told(batches, now_ns))
    boots_of = ((b.checkpoint.device, {e.boot_id for e in b.events}) for b in batches)
    names = {(device, plain_text(boot)) for device, found_ids in boots_of for boot in found_ids}
    names |= {name for name, _ in found}
    w = wanted(connection, "device", "boot_id")
    query = f"""SELECT b.device, b.boot_id, b.offset_ns, b.uncertainty_ns, b.source FROM {w.table} w JOIN boot_clock b
        ON b.device = w.device AND b.boot_id = w.boot_id"""
    rows = connection.execute(statement(query), w.values(sorted(names)))
    before = {(device, boot): BootClock(*clock) for device, boot, *clock in rows}
    boots = dict(before)
    for name, clock in found:
        if better(clock, boots.get(name)):
            boots[name] = clock
    _keep(connection, {name: clock for name, clock in boots.items() if clock != before.get(name)}, before)
    known: dict[str, dict[str, BootClock]] = {b.checkpoint.device: {} for b in batches}
    for (device, boot), clock in boots.items():
        known[device][boot] = clock
    return {device: Clocks(clocks) for device, clocks in known.items()}


def _keep(
    connection: Connection, changed: Mapping[tuple[str, str], BootClock], before: Mapping[tuple[str, str], BootClock]
) -> None:
    rows = [{"device": name[0], "boot_id": name[1], **clock._asdict()} for name, clock in changed.items()]
    if not rows:
        return
    connection.execute(KEEP_CLOCK, rows)
    e = t.event.c
    for (device, boot), clock in changed.items():
        old = before.get((device, boot))
        if old is None or old.source != clock.source or abs(old.offset_ns - clock.offset_ns) >= RESTAMP_NS:
            stamp = {"time_ns": e.mono_ns + clock.offset_ns, "time_source": clock.source}
            unsure = (e.device == device, e.boot_id == boot, e.time_source != "device")
            connection.execute(update(t.event).where(*unsure).values(**stamp))
