from __future__ import annotations

from collections.abc import Sequence

import pytest

from firmware_sim.registers import TAGS, Registers


def test_no_two_tags_overlap() -> None:
    cells = [(t.space, t.address + i) for t in TAGS for i in range(t.words)]
    assert len(cells) == len(set(cells))


def test_two_words_have_the_high_one_first() -> None:
    registers = Registers()
    registers.put("lot", 0x12345678)
    assert registers.read("holding", 6, 2) == [0x1234, 0x5678]
    assert registers.get("lot") == 0x12345678


@pytest.mark.parametrize(("address", "count"), [(9, 2), (10, 1), (19, 1), (105, 1), (0, 11), (60000, 1)])
def test_what_is_not_in_the_map_cannot_be_read(address: int, count: int) -> None:
    assert Registers().read("holding", address, count) is None


@pytest.mark.parametrize("tag", [t for t in TAGS if t.writer == "plc"], ids=lambda t: t.name)
def test_the_plcs_own_tags_cannot_be_written(tag: object) -> None:
    heard: list[Sequence[str]] = []
    registers = Registers(heard.append)
    assert not registers.client_writes("holding", getattr(tag, "address"), [1])  # noqa: B009
    assert not heard
    assert not registers.client_writes("holding", 99, [1, 1])
    assert registers.read("holding", 100, 1) == [0]


def test_an_answer_is_heard_after_it_is_stored() -> None:
    registers = Registers()
    heard: list[tuple[int, int, int]] = []
    registers.on_write = lambda names: heard.append(tuple(registers.get(n) for n in names))  # type: ignore[arg-type]
    assert registers.client_writes("holding", 100, [9, 2, 700])
    assert heard == [(9, 2, 700)]
