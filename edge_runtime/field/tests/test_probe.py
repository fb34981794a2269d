"""The probe: exact ranges with few requests, and the right byte order from a few readings."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.cli import run
from edge_runtime.field import probe
from edge_runtime.field.codec import encode
from edge_runtime.field.tag import Space, Tag
from edge_runtime.field.tests.modbus_server import Plc

ORDERS = ("ABCD", "DCBA", "BADC", "CDAB")


@given(st.sets(st.integers(0, 299)), st.integers(0, 299))
def test_ranges_are_exact(there: set[int], last: int) -> None:
    def read(space: Space, address: int, count: int) -> list[int] | None:
        wanted = range(address, address + count)
        assert count <= probe.BLOCK
        assert wanted[-1] <= last
        return [0] * count if all(a in there for a in wanted) else None

    found = probe.ranges(read, "holding", 0, last)
    assert {a for begin, end in found for a in range(begin, end + 1)} == {a for a in there if a <= last}
    assert all(b[0] > a[1] + 1 for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("kind", "series"),
    [
        ("float32", (21.37, 21.41, 21.39, 21.52)),
        ("float32", (1450.2, 1451.9, 1449.3, 1450.0)),
        ("float32", (0.132, 0.129, 0.141, 0.137)),
        ("float32", (-48.25, -48.5, -48.0, -48.25)),
        ("int32", (123456, 123460, 123477, 123480)),
        ("int32", (-412, -409, -420, -415)),
    ],
)
def test_the_order_of_a_moving_value_is_found(kind: str, series: tuple[float, ...], order: str) -> None:
    tag = Tag("t", kind, word_order=order)  # type: ignore[arg-type]
    best = max(probe.candidates([encode(tag, v) for v in series], 8), key=lambda g: g.score)
    assert (best.type, best.word_order) == (kind, order)
    assert best.values == pytest.approx(series)


def test_pairs_do_not_overlap_and_find_their_alignment() -> None:
    tag = Tag("t", "float32", word_order="CDAB")
    readings = [
        [7, *encode(tag, 20.1 + n * 0.03), *encode(tag, 3.3 - n * 0.011), *encode(tag, 1480.7 + n * 0.7)]
        for n in range(4)
    ]
    guesses = probe.pairs(readings, 100)
    assert sorted(g.address for g in guesses) == [101, 103, 105]
    assert probe.totals(guesses)[0][0] == "CDAB"


def test_zeros_say_nothing() -> None:
    assert probe.pairs([[0, 0, 0], [0, 0, 0]], 0) == []


def test_the_command_on_a_real_server(capsys: pytest.CaptureFixture[str]) -> None:
    flow = encode(Tag("t", "float32", word_order="CDAB"), 42.37)
    plc = Plc({**dict(enumerate(flow)), 10: 0, 12: 0}, {0: True})
    plc.start()
    try:
        asked = [f"127.0.0.1:{plc.port}", "--to", "15", "--pause-ms", "0", "--space", "holding"]
        assert run("probe", ["modbus", *asked, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["ranges"] == {"holding": [[0, 1], [10, 10], [12, 12]]}
        best = report["pairs"]["holding"][0]
        assert (best["address"], best["type"], best["word_order"]) == (0, "float32", "CDAB")
        assert report["word_orders"][0]["word_order"] == "CDAB"
        assert run("probe", ["modbus", *asked]) == 0
        assert "holding  0–1, 10, 12" in capsys.readouterr().out
    finally:
        plc.stop()


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["modbus"], 2, "expected HOST[:PORT] or --serial DEVICE"),
        (["modbus", "h", "--serial", "/dev/x"], 2, "expected HOST[:PORT] or --serial DEVICE"),
        (["modbus", "h:x"], 2, "port 'x'"),
        (["modbus", "h", "--from", "9", "--to", "3"], 2, "expected 0 <= from <= to"),
        (["profinet"], 2, "invalid choice"),
        (["modbus", "--serial", "/dev/nowhere"], 5, "cannot connect; check the serial device"),
        (["modbus", "127.0.0.1:1"], 5, "cannot connect; check address, port"),
    ],
)
def test_errors_are_one_line(args: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("probe", args) == code
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
