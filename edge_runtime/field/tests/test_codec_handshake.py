"""Register codecs in four orders, and the handshake's tags."""

from __future__ import annotations

import math
import struct
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config import PlcMap
from edge_runtime.field.codec import decode, decode_all, encode
from edge_runtime.field.handshake import PART_SEQ_MAX, handshake, next_seq
from edge_runtime.field.tag import WORDS, Tag, TagType

ORDERS = ("ABCD", "DCBA", "BADC", "CDAB")
VALUES: dict[str, st.SearchStrategy[int | float]] = {
    "bool": st.booleans(),
    "uint16": st.integers(0, 0xFFFF),
    "int16": st.integers(-0x8000, 0x7FFF),
    "uint32": st.integers(0, 0xFFFF_FFFF),
    "int32": st.integers(-0x8000_0000, 0x7FFF_FFFF),
    "float32": st.floats(width=32, allow_nan=False),
    "uint64": st.integers(0, 2**64 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float64": st.floats(allow_nan=False),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", VALUES)
@given(data=st.data())
def test_round_trip(kind: TagType, order: str, data: st.DataObject) -> None:
    tag = Tag("t", kind, word_order=order)  # type: ignore[arg-type]
    value = data.draw(VALUES[kind])
    registers = encode(tag, value)
    assert len(registers) == WORDS[kind]
    assert all(0 <= r <= 0xFFFF for r in registers)
    assert decode(tag, registers) == value


def test_every_type_is_tested() -> None:
    assert set(VALUES) == set(get_args(TagType)) == set(WORDS)


@pytest.mark.parametrize(
    ("order", "registers"),
    [("ABCD", [0x0A0B, 0x0C0D]), ("DCBA", [0x0D0C, 0x0B0A]), ("BADC", [0x0B0A, 0x0D0C]), ("CDAB", [0x0C0D, 0x0A0B])],
)
def test_the_bytes_are_where_the_order_says(order: str, registers: list[int]) -> None:
    assert encode(Tag("t", "uint32", word_order=order), 0x0A0B0C0D) == registers  # type: ignore[arg-type]
    real = struct.unpack(">f", bytes.fromhex("0A0B0C0D"))[0]
    assert encode(Tag("t", "float32", word_order=order), real) == registers  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("order", "registers"),
    [
        ("ABCD", [0x0102, 0x0304, 0x0506, 0x0708]),
        ("DCBA", [0x0807, 0x0605, 0x0403, 0x0201]),
        ("BADC", [0x0201, 0x0403, 0x0605, 0x0807]),
        ("CDAB", [0x0708, 0x0506, 0x0304, 0x0102]),
    ],
)
def test_the_bytes_of_64_bits_are_where_the_order_says(order: str, registers: list[int]) -> None:
    for kind, code in (("uint64", ">Q"), ("int64", ">q"), ("float64", ">d")):
        value = struct.unpack(code, bytes(range(1, 9)))[0]
        assert encode(Tag("t", kind, word_order=order), value) == registers  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ORDERS)
@given(values=st.lists(st.integers(-0x8000, 0x7FFF), min_size=1, max_size=8))
def test_a_wave_is_decoded_value_by_value(order: str, values: list[int]) -> None:
    tag = Tag("t", "int16", word_order=order, count=len(values))  # type: ignore[arg-type]
    assert decode_all(tag, [word for value in values for word in encode(tag, value)]) == values


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uint64", 2**64),
        ("int64", 2**63),
        ("uint16", -1),
        ("uint16", 65536),
        ("int16", 40000),
        ("uint32", 2**32),
        ("uint16", math.inf),
        ("float32", 1e39),
    ],
)
def test_a_value_that_does_not_fit_is_refused(kind: TagType, value: float) -> None:
    with pytest.raises(ValueError, match=f"tag speed: .* does not fit {kind}"):
        encode(Tag("speed", kind), value)


def test_not_a_number_is_no_integer() -> None:
    with pytest.raises(ValueError):
        encode(Tag("speed", "uint16"), math.nan)


def test_the_default_handshake() -> None:
    h = handshake(PlcMap())
    assert [t.address for t in h.inputs] == [0, 1]
    assert [(t.name, t.address) for t in h.results] == [("result_seq", 100), ("result", 101), ("score", 102)]
    assert [(t.name, v) for t, v in h.answer(7, 2, 990)] == [("result_seq", 7), ("result", 2), ("score", 990)]
    assert (h.recipe, h.lot, h.serial) == (None, None, None)
    assert (h.reject_coil.space, h.reject_coil.type) == ("coil", "bool")


@pytest.mark.parametrize(("changes", "in_one_request"), [({"score": 110}, True), ({}, False)])
def test_result_seq_comes_last_where_one_request_is_not_possible(changes: dict[str, int], in_one_request: bool) -> None:
    h = handshake(PlcMap(**changes), in_one_request)
    assert [t.name for t, _ in h.answer(7, 2, 990)] == ["result", "score", "result_seq"]


def test_optional_inputs_are_read_where_the_plc_has_them() -> None:
    h = handshake(PlcMap(recipe=5, lot=6, serial=8))
    assert [(t.name, t.type, t.address) for t in h.inputs[2:]] == [
        ("recipe", "uint16", 5), ("lot", "uint32", 6), ("serial", "uint32", 8),
    ]  # fmt: skip


@given(st.integers(0, PART_SEQ_MAX))
def test_part_numbers_wrap_from_65535_to_1(seq: int) -> None:
    after = next_seq(seq)
    assert after == (seq + 1 if seq < PART_SEQ_MAX else 1)
    assert after != 0
