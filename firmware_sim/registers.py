"""The PLC's registers: one plain array that Modbus and OPC UA share, and the table of what lies where.

- Addresses are zero-based; 32-bit values have the high word first; what the table does not list does not exist.
- The client may write only what the table gives to it. A write to `result_seq` is an answer; result and score must be
  there by then (one request over the three, or they first).
- Inputs that change all the time (the encoder) are brought up to date by `before_read`.
- Values are stored first, then `on_write` hears which tags were written, in the same call: a time taken there is the
  time of the write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Writer = Literal["plc", "edge", "operator"]


class Tag(NamedTuple):
    name: str
    space: Literal["holding", "coil"]
    address: int
    words: int
    writer: Writer
    meaning: str


TAGS = (
    Tag("line_state", "holding", 0, 1, "plc", "PackML state code, see below"),
    Tag(
        "part_seq", "holding", 1, 1, "plc", "the trigger: +1 (65535 → 1) when a part stands in the inspection position"
    ),
    Tag("encoder", "holding", 2, 2, "plc", "belt position in tenths of a millimetre, uint32"),
    Tag("belt_speed", "holding", 4, 1, "plc", "mm/s; 0 when the belt stands"),
    Tag("recipe", "holding", 5, 1, "plc", "recipe code of the part (optional input)"),
    Tag("lot", "holding", 6, 2, "plc", "lot counter, uint32 (optional input)"),
    Tag("serial", "holding", 8, 2, "plc", "serial number of the part, uint32 (optional input)"),
    Tag("command", "holding", 20, 1, "operator", "PackML command code, see below; 0 again when taken"),
    Tag("result_seq", "holding", 100, 1, "edge", "the `part_seq` that this result answers"),
    Tag("result", "holding", 101, 1, "edge", "1 pass, 2 reject, 3 review, 4 fault"),
    Tag("score", "holding", 102, 1, "edge", "0–1000"),
    Tag("heartbeat", "holding", 103, 1, "edge", "+1 at least every 500 ms"),
    Tag("health", "holding", 104, 1, "edge", "1 nominal, 2 degraded, 3 safe"),
    Tag("reject_coil", "coil", 100, 1, "edge", "reject pulse (optional output): on, then off after `pulse_ms`"),
)
BY_NAME = {t.name: t for t in TAGS}
_AT: dict[tuple[str, int], Tag] = {(t.space, t.address + i): t for t in TAGS for i in range(t.words)}
LIVE_END = 5  # encoder and belt speed end here
_SIZE = 1 + max(address for _, address in _AT)


class Registers:
    """Holding registers and coils. `on_write` is called with the names of the tags that a client wrote."""

    def __init__(self, on_write: Callable[[Sequence[str]], None] = lambda names: None) -> None:
        self.on_write = on_write
        self.before_read: Callable[[], None] = lambda: None
        self._space: dict[str, list[int]] = {"holding": [0] * _SIZE, "coil": [0] * _SIZE}

    def get(self, name: str) -> int:
        tag = BY_NAME[name]
        cells = self._space[tag.space]
        return cells[tag.address] if tag.words == 1 else cells[tag.address] << 16 | cells[tag.address + 1]

    def put(self, name: str, value: int) -> None:
        """The PLC's own write; nobody is told."""
        tag = BY_NAME[name]
        cells = self._space[tag.space]
        if tag.words == 1:
            cells[tag.address] = value & 0xFFFF
        else:
            cells[tag.address], cells[tag.address + 1] = value >> 16 & 0xFFFF, value & 0xFFFF

    def read(self, space: str, address: int, count: int) -> list[int] | None:
        """`count` cells; None where one of them does not exist."""
        if any((space, a) not in _AT for a in range(address, address + count)):
            return None
        if space == "holding" and address < LIVE_END:
            self.before_read()
        return self._space[space][address : address + count]

    def client_writes(self, space: str, address: int, values: Sequence[int]) -> bool:
        """A write over the wire; False (and nothing is written) where a cell does not exist or is the PLC's."""
        tags = [_AT.get((space, address + i)) for i in range(len(values))]
        if not tags or any(t is None or t.writer == "plc" for t in tags):
            return False
        self._space[space][address : address + len(values)] = [int(v) & 0xFFFF for v in values]
        self.on_write([t.name for t in tags if t is not None])
        return True

    def client_writes_tag(self, name: str, value: int) -> bool:
        """A write of one whole tag (OPC UA)."""
        tag = BY_NAME[name]
        return tag.words == 1 and self.client_writes(tag.space, tag.address, [value])

    def clear(self) -> None:
        for cells in self._space.values():
            cells[:] = [0] * _SIZE


def docs_table() -> str:
    """The table of the reference page."""
    rows = ["| address | tag | OPC UA type | written by | meaning |", "|---|---|---|---|---|"]
    for tag in TAGS:
        last = f"–{tag.address + 1}" if tag.words == 2 else ""
        kind = "Boolean" if tag.space == "coil" else "UInt32" if tag.words == 2 else "UInt16"
        who = "PLC" if tag.writer == "plc" else tag.writer
        rows.append(f"| {tag.space} {tag.address}{last} | `{tag.name}` | {kind} | {who} | {tag.meaning} |")
    return "\n".join(rows)
