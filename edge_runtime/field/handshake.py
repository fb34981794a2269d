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
    in_one_request: bool = True

    @property
    def inputs(self) -> tuple[Tag, ...]:
        optional = (self.recipe, self.lot, self.serial)
        return (self.line_state, self.part_seq, *(t for t in optional if t is not None))

    @property
    def results(self) -> tuple[Tag, ...]:
        """What the PLC holds of the last answer."""
        return (self.result_seq, self.result, self.score)

    def answer(self, seq: int, result: int, score: int) -> list[tuple[Tag, int]]:
        """The three values in the order in which they are written. Three neighbours go in one request; where the map
        does not allow that, `result_seq`, on which the PLC acts, comes last."""
        values = [(self.result_seq, seq), (self.result, result), (self.score, score)]
        first = self.result_seq.address
        together = self.in_one_request and (self.result.address, self.score.address) == (first + 1, first + 2)
        return values if together else [*values[1:], values[0]]


def handshake(m: PlcMap, in_one_request: bool = True) -> Handshake:
    """`in_one_request`: the protocol writes neighbouring addresses at once (Modbus FC16)."""

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
        in_one_request=in_one_request,
    )


def next_seq(seq: int) -> int:
    """The `part_seq` after `seq`: 65535 is followed by 1."""
    return 1 if seq >= PART_SEQ_MAX else seq + 1
