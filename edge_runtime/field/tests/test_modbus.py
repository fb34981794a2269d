"""Modbus: few requests, FC16 in order, and every way that a PLC can fail."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config import PlcMap
from edge_runtime.errors import EndpointError
from edge_runtime.field.handshake import handshake
from edge_runtime.field.modbus import COUNT_LIMIT, ModbusDriver, merge_writes, plan_reads
from edge_runtime.field.tag import WORDS, Quality, Tag
from edge_runtime.field.tests.modbus_server import Plc, silent_server

TAGS = handshake(PlcMap())
HOLDING = {**dict.fromkeys(range(10), 7), **dict.fromkeys(range(20, 24), 8), **dict.fromkeys(range(100, 105), 0)}

tags = st.lists(
    st.builds(
        Tag,
        name=st.just("t"),
        type=st.sampled_from(["uint16", "uint32", "float32"]),
        space=st.sampled_from(["holding", "input"]),
        address=st.integers(0, 400),
    ),
    max_size=20,
)


@given(tags)
def test_a_plan_covers_every_tag_once_within_the_limit(wanted: list[Tag]) -> None:
    plan = plan_reads(wanted)
    assert sorted(i for request in plan for i, _ in request.picks) == list(range(len(wanted)))
    for request in plan:
        assert 0 < request.count <= COUNT_LIMIT
        for i, offset in request.picks:
            assert wanted[i].space == request.space
            assert request.address + offset == wanted[i].address
            assert offset + WORDS[wanted[i].type] <= request.count


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 65535)), max_size=200))
def test_merged_writes_keep_the_order_and_never_write_a_gap(values: list[tuple[int, int]]) -> None:
    merged = merge_writes([(Tag("t", "uint16", address=a), v) for a, v in values])
    assert [(a + i, v) for _, a, registers in merged for i, v in enumerate(registers)] == values
    assert all(len(registers) <= COUNT_LIMIT for _, _, registers in merged)


@pytest.fixture
def plc() -> Iterator[Plc]:
    plc = Plc(HOLDING, {100: False})
    plc.start()
    yield plc
    plc.stop()


@pytest.fixture
def driver(plc: Plc) -> Iterator[ModbusDriver]:
    driver = ModbusDriver("127.0.0.1", plc.port, timeout_s=1.0)
    driver.connect()
    plc.requests.clear()
    yield driver
    driver.close()


def test_neighbours_are_read_in_one_request(plc: Plc, driver: ModbusDriver) -> None:
    driver.read((*TAGS.inputs, Tag("speed", "uint16", address=4)))
    assert plc.requests == [(3, 0, 5)]


def test_a_refused_gap_does_not_hide_its_neighbours(plc: Plc, driver: ModbusDriver) -> None:
    """Registers 10 to 19 do not exist; 9 and 20 are fetched together at first, then alone."""
    wanted = [Tag("a", "uint16", address=4), Tag("b", "uint16", address=9), Tag("c", "uint16", address=15)]
    got = driver.read([*wanted, Tag("d", "uint16", address=20)])
    assert [(s.value, s.quality) for s in got] == [
        (7, Quality.GOOD), (7, Quality.GOOD), (None, Quality.BAD), (8, Quality.GOOD),
    ]  # fmt: skip
    plc.requests.clear()
    driver.read([*wanted, Tag("d", "uint16", address=20)])
    assert [(a, n) for _, a, n in plc.requests] == [(4, 1), (9, 1), (15, 1), (20, 1)]


def test_a_wave_that_changes_while_it_is_read_is_read_again(
    driver: ModbusDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = Tag("wave", "int16", count=300, rate_hz=1000.0)
    for changes, quality in ((0, Quality.GOOD), (1, Quality.GOOD), (2, Quality.UNCERTAIN)):
        firsts = iter([[0] * 120, [1 if changes > 0 else 0] * 120, [1] * 120, [2 if changes > 1 else 1] * 120])
        monkeypatch.setattr(driver, "_call", lambda space, at, count, f=firsts: next(f) if at == 0 else [1] * count)
        assert driver.read_wave(tag).quality is quality


def test_the_answer_is_one_fc16(plc: Plc, driver: ModbusDriver) -> None:
    driver.write([(TAGS.result_seq, 9), (TAGS.result, 1), (TAGS.score, 12)])
    assert plc.requests == [(16, 100, 3)]
    assert [plc.get(a) for a in (100, 101, 102)] == [9, 1, 12]


def test_writes_with_a_gap_are_separate_and_in_order(plc: Plc, driver: ModbusDriver) -> None:
    driver.write([(TAGS.health, 1), (TAGS.reject_coil, True), (TAGS.result_seq, 9), (TAGS.result, 1)])
    assert plc.requests == [(16, 104, 1), (5, 100, 1), (16, 100, 2)]


def test_a_refused_write_is_an_endpoint_error(driver: ModbusDriver) -> None:
    with pytest.raises(EndpointError, match="refused a write"):
        driver.write([(Tag("x", "uint16", address=4000), 1)])
    driver.connect()


def test_inputs_cannot_be_written(plc: Plc, driver: ModbusDriver) -> None:
    with pytest.raises(ValueError, match=r"tag x: .* cannot be written"):
        driver.write([(Tag("x", "uint16", "input", 1), 1)])
    assert plc.requests == []


def test_a_value_that_does_not_fit_writes_nothing(plc: Plc, driver: ModbusDriver) -> None:
    with pytest.raises(ValueError, match="tag score"):
        driver.write([(TAGS.result_seq, 1), (TAGS.score, 70_000)])
    assert plc.requests == []


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(EndpointError, match=f"Modbus TCP 127.0.0.1:{port}: cannot connect"):
        ModbusDriver("127.0.0.1", port).connect()


def test_a_server_that_never_answers_is_left_after_the_time_out() -> None:
    with silent_server() as port:
        start = time.monotonic()
        with pytest.raises(EndpointError, match="no answer"):
            ModbusDriver("127.0.0.1", port, timeout_s=0.1).connect()
        assert 0.05 < time.monotonic() - start < 10.0


@pytest.mark.parametrize("reply", [b"", b"\0" * 3, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 300])
def test_a_server_that_talks_nonsense_is_an_endpoint_error(reply: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        driver = ModbusDriver("127.0.0.1", server.getsockname()[1], timeout_s=0.1)
        with pytest.raises(EndpointError) as caught:
            driver.connect()
        assert "\n" not in str(caught.value)
        thread.join(5)
