"""The PLC handshake as tags: what the device reads at every poll and what it writes.

The map is in docs/reference/plc-handshake.md."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.config import PlcMap
from edge_runtime.field.tag import Tag

PART_SEQ_MAX = 65535


@dataclass(frozen=True)
class Handshake:
    """`inputs` is read in one go at every poll; `recipe`, `lot` and `serial` are None where the PLC has none."""

    line_state: Tag
    part_seq: Tag
    recipe: Tag | None
    lot: Tag | None
    serial: Tag | None
    result_seq: Tag
    result: Tag
    score: Tag
    heartbeat: Tag
    health: Tag
    reject_coil: Tag

    @property
    def inputs(self) -> tuple[Tag, ...]:
        optional = (self.recipe, self.lot, self.serial)
        return (self.line_state, self.part_seq, *(t for t in optional if t is not None))

    @property
    def answer(self) -> tuple[Tag, ...]:
        return (self.result_seq, self.result, self.score)


def handshake(m: PlcMap) -> Handshake:
    def tag(name: str, kind: str = "uint16") -> Tag:
        return Tag(name, kind, "holding", getattr(m, name), node=name)  # type: ignore[arg-type]

    def optional(name: str, kind: str = "uint16") -> Tag | None:
        return tag(name, kind) if getattr(m, name) >= 0 else None

    return Handshake(
        line_state=tag("line_state"),
        part_seq=tag("part_seq"),
        recipe=optional("recipe"),
        lot=optional("lot", "uint32"),
        serial=optional("serial", "uint32"),
        result_seq=tag("result_seq"),
        result=tag("result"),
        score=tag("score"),
        heartbeat=tag("heartbeat"),
        health=tag("health"),
        reject_coil=Tag("reject_coil", "bool", "coil", m.reject_coil, node="reject_coil"),
    )


def next_seq(seq: int) -> int:
    """The `part_seq` after `seq`: 65535 is followed by 1."""
    return 1 if seq >= PART_SEQ_MAX else seq + 1
