"""Session, delivery, pace, mapping and payload without a broker."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.link.sparkplug import payload
from edge_runtime.link.sparkplug.commands import PER_MINUTE, AtMost
from edge_runtime.link.sparkplug.delivery import Delivery
from edge_runtime.link.sparkplug.line import LineWatch
from edge_runtime.link.sparkplug.mapping import OTHER, OWNERS, Owner, Registry, messages
from edge_runtime.link.sparkplug.pace import Pace
from edge_runtime.link.sparkplug.payload import DataType, Metric
from edge_runtime.link.sparkplug.saved import Saved
from edge_runtime.link.sparkplug.session import (
    ACTIONS,
    LINE_TABLE,
    TABLE,
    Action,
    Input,
    LineInput,
    LineState,
    PrimaryHost,
    State,
    advance,
    advance_line,
    after,
)
from edge_runtime.link.sparkplug.settings import SparkplugSection
from edge_runtime.link.sparkplug.tests.wire_reader import command, read_payload, value_of
from edge_runtime.link.sparkplug.topics import Names, state_topic
from edge_runtime.wire.envelope import STREAMS, Event, Record
from edge_runtime.wire.topics import Place


def event(stream: str, kind: str, body: dict[str, Any], seq: int = 1, wall_ms: int = 1000, **more: Any) -> Event:
    fields: dict[str, Any] = {"boot_id": "boot", "mono_ns": seq, "wall_uncertainty_ns": None} | more
    return Event("d", "0" * 16, stream, seq, kind=kind, wall_ns=wall_ms * 1_000_000, body=body, **fields)


# ── session ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_walk_through_the_table_gives_birth_before_a_subscription_and_a_host() -> None:
    rng = random.Random(1)
    state, host, subscribed = State.OFFLINE, False, False
    for _ in range(20_000):
        given = rng.choice(list(Input))
        state, action = advance(state, given)
        host = given is Input.HOST_ONLINE or (host and given is not Input.HOST_OFFLINE)
        subscribed = (subscribed or given is Input.SUBSCRIBED) and given not in (Input.LOST, Input.CONNECT)
        if action is Action.BIRTH:
            assert host
            assert state is State.BORN
        if given is Input.LOST:
            assert state is State.OFFLINE
        if action is Action.LEAVE:
            assert state is State.OFFLINE


def test_every_row_of_the_tables_is_reached_and_every_state_can_be_left() -> None:
    assert {state for state, _ in TABLE} == set(State)
    assert set(TABLE.values()) == set(State)
    assert set(ACTIONS.values()) == set(Action)
    assert {state for state, _ in LINE_TABLE} == set(LineState)
    assert all(advance(state, Input.LOST)[0] is State.OFFLINE for state in State)


def test_a_line_dies_once_and_is_born_once() -> None:
    assert advance_line(LineState.DEAD, LineInput.GONE) == (LineState.DEAD, None)
    state, action = advance_line(LineState.DEAD, LineInput.SEEN)
    assert (state, action is not None) == (LineState.BORN, True)
    assert advance_line(state, LineInput.SEEN) == (LineState.BORN, None)
    assert advance_line(state, LineInput.NODE_GONE) == (LineState.DEAD, None)


def test_seq_and_bd_seq_wrap_after_255() -> None:
    assert [after(0), after(254), after(255)] == [1, 255, 0]


@pytest.mark.parametrize(
    "data",
    [b"ONLINE", b"[]", b"{}", b'{"online": 1, "timestamp": 1}', b'{"online": true}', b'{"online": true, "timestamp": -1}',
     b'{"online": true, "timestamp": 1.5}', b"[" * 100_000, b"\xff", b" " * 5000],
)  # fmt: skip
def test_what_is_no_state_message_is_refused(data: bytes) -> None:
    host = PrimaryHost()
    with pytest.raises(ValueError, match="STATE"):
        host.see(data)
    assert not host.online


def test_an_older_state_does_not_count_and_one_of_the_same_time_does() -> None:
    host = PrimaryHost()
    assert host.see(b'{"online": true, "timestamp": 5}')
    assert not host.see(b'{"online": false, "timestamp": 4}')
    assert host.online
    assert host.see(b'{"online": false, "timestamp": 5}')
    assert not host.online
    host.forget()
    assert not host.see(b'{"online": true, "timestamp": 4}')


def test_the_line_is_there_while_control_speaks() -> None:
    watch = LineWatch("boot", 10)
    assert watch.verdict(0) is LineInput.GONE
    watch.see(event("metric", "control", {}, mono_ns=100))
    watch.see(event("metric", "control", {}, mono_ns=90))
    watch.see(event("metric", "pump", {}, mono_ns=105))
    assert watch.verdict(110) is LineInput.SEEN
    assert watch.verdict(111) is LineInput.GONE
    watch.see(event("fault", "plc_lost", {}, mono_ns=101))
    assert watch.verdict(102) is LineInput.GONE
    watch.see(event("health", "plc_connected", {}, mono_ns=103))
    assert watch.verdict(104) is LineInput.SEEN
    other = LineWatch("another boot", 10)
    other.see(event("metric", "control", {}, mono_ns=100))
    assert other.verdict(101) is LineInput.GONE


# ── delivery ────────────────────────────────────────────────────────────────────────────────────────────────────────


def records(stream: str, *seqs: int) -> list[Record]:
    return [Record(stream, seq, b"") for seq in seqs]


def test_nothing_is_confirmed_without_an_answer_and_a_second_one_after_the_hold() -> None:
    d = Delivery({"alarm": 0})
    d.no_backlog(["alarm"])
    d.sent(records("alarm", 1, 2), live=True)
    assert d.wants_barrier(100, 50)
    d.barrier(7, now_ns=100)
    d.sent(records("alarm", 3), live=True)
    assert not d.wants_barrier(110, 50), "one at a time"
    assert d.confirmed(50) == {}
    assert d.unanswered_ns(300) == 200
    d.answered(8, 300)
    assert d.confirmed(50) == {}
    d.answered(7, 300)
    d.barrier(8, now_ns=320)
    d.answered(8, 330)
    assert d.confirmed(50) == {}, "sent before the hold was over: the host's death may be on its way"
    assert not d.wants_barrier(349, 50)
    assert d.wants_barrier(350, 50)
    d.barrier(9, now_ns=350)
    assert not d.wants_barrier(400, 50)
    assert d.confirmed(50) == {}
    d.answered(9, 10_000)
    assert d.confirmed(50) == {"alarm": 2}
    assert d.wants_barrier(10_000, 50), "for the third, which was answered at 330"
    d.barrier(10, now_ns=10_000)
    d.answered(10, 10_001)
    assert d.confirmed(50) == {"alarm": 3}
    assert d.confirmed(50) == {}
    assert not d.wants_barrier(10**9, 50), "nothing to confirm, nothing to ask"
    d.barrier(11, now_ns=10**9)
    d.answered(11, 10**9)
    assert d.confirmed(50) == {}
    assert not d.wants_barrier(2 * 10**9, 50)


def test_live_spans_wait_for_the_backlog_before_them() -> None:
    d = Delivery({"fault": 10})
    d.sent(records("fault", 11, 12), live=True)
    d.sent(records("fault", 1, 2, 5), live=False)
    d.barrier(1, 0)
    d.answered(1, 0)
    assert d.confirmed(0) == {"fault": 5}, "3 and 4 were given up by the outbox"
    d.sent(records("fault", 6, 10), live=False)
    d.no_backlog(["fault"])
    d.barrier(2, 0)
    d.answered(2, 0)
    assert d.confirmed(0) == {"fault": 12}
    assert d.backlog_streams(["fault", "alarm"]) == ["alarm"]


def test_what_came_while_the_line_was_away_is_backlog() -> None:
    d = Delivery({"decision": 5})
    d.no_backlog(["decision"])
    d.sent(records("decision", 6, 7), live=True)
    d.born_again({"decision": 9})
    assert (d.backlog_after["decision"], d.backlog_upto["decision"], d.live_after["decision"]) == (7, 9, 9)
    d.sent(records("decision", 10), live=True)
    d.barrier(1, 0)
    d.answered(1, 0)
    assert d.confirmed(0) == {"decision": 7}
    d.sent(records("decision", 8, 9), live=False)
    d.barrier(2, 0)
    d.answered(2, 0)
    assert d.confirmed(0) == {"decision": 10}


def test_random_histories_never_acknowledge_what_was_not_confirmed() -> None:
    rng = random.Random(3)
    for _ in range(300):
        head = rng.randint(0, 20)
        d, confirmed, pending, acked = Delivery({"alarm": head}), set(range(0)), [], 0
        live, backlog, token = head, 0, 0
        for _ in range(60):
            what = rng.random()
            if what < 0.3:
                d.sent(records("alarm", live + 1), live=True)
                live += 1
                pending.append(live)
            elif what < 0.6 and backlog < head:
                d.sent(records("alarm", backlog + 1), live=False)
                backlog += 1
                pending.append(backlog)
            elif what < 0.7 and backlog == head:
                d.no_backlog(["alarm"])
            elif d.wants_barrier(0, 0):
                token += 1
                d.barrier(token, 0)
                if rng.random() < 0.7:
                    d.answered(token, 0)
                    confirmed |= set(pending)
                    pending = []
            acked = max(acked, d.confirmed(0).get("alarm", 0))
            assert set(range(1, acked + 1)) <= confirmed


def test_the_pace_is_kept_and_a_long_silence_is_no_credit() -> None:
    pace = Pace(100.0, 1000.0, 0)
    assert pace.records(0, 500) == 100
    pace.spend(100, 500, 0)
    assert pace.records(0, 500) == 0
    assert 0 < pace.wait_s(0) <= 0.01
    assert pace.records(500_000_000, 500) == 50
    pace.spend(1, 3000, 500_000_000)
    assert pace.records(1_000_000_000, 500) == 0, "bytes are owed"
    assert pace.records(3_600_000_000_000, 500) == 100
    assert Pace(0.0, 0.0, 0).records(0, 500) == 500
    slow = Pace(0.5, 0.0, 0)
    assert slow.records(0, 10) == 1
    slow.spend(1, 10, 0)
    assert slow.records(1_000_000_000, 10) == 0
    assert slow.records(2_100_000_000, 10) == 1


# ── mapping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def said(registry: Registry, e: Event, historical: bool = True) -> dict[str, Any]:
    return {_name(registry, m): m.value for m in registry.metrics(e, historical)}


def _name(registry: Registry, metric: Metric) -> str:
    assert metric.name is None
    found = registry.find(None, metric.alias)
    assert found is not None
    return found[0]


def test_every_stream_has_an_owner() -> None:
    assert set(OWNERS) == set(STREAMS)


def test_bodies_become_flat_names_with_their_types() -> None:
    registry = Registry()
    e = event(
        "telemetry", "pump.1", {"a": {"b": 1, "c/d": 2.5}, "e": True, "f": [1, "x"], "g": "t", "h": None, "i": 2**70}, 9
    )
    assert registry.learn([e])
    assert not registry.learn([e])
    first = "Telemetry/pump_1/"
    assert said(registry, e) == {
        first + "seq": 9, first + "a/b": 1, first + "a/c_d": 2.5, first + "e": True, first + "f": '[1,"x"]',
        first + "g": "t", first + "i": str(2**70),
    }  # fmt: skip
    types = {m.name: m.datatype for m in registry.birth(Owner.LINE, 0)}
    assert types[first + "a/b"] == DataType.INT64
    assert types[first + "e"] == DataType.BOOLEAN


def test_a_datatype_only_widens() -> None:
    registry = Registry()
    for value, wide in ((1, 4), (1.5, 10), (2, 10), ("x", 12), (3, 12), (None, 12)):
        e = event("metric", "k", {"v": value})
        registry.learn([e])
        (metric,) = [m for m in registry.metrics(e, True) if _name(registry, m) == "Metric/k/v"]
        assert metric.datatype == wide
        assert metric.value is None or type(metric.value) is {4: int, 10: float, 12: str}[wide]


def test_what_finds_no_place_is_told_as_other() -> None:
    full = Registry(limit=1)
    e = event("metric", "k", {"v": 5}, seq=3)
    assert not full.learn([e])
    ((name, text),) = said(full, e).items()
    assert name == OTHER
    assert json.loads(text) == {
        "stream": "metric",
        "kind": "k",
        "seq": 3,
        "fields": {"Metric/k/seq": 3, "Metric/k/v": 5},
    }
    alike = Registry()
    e = event("metric", "k", {"a.b": 1, "a:b": 2, "A_B": 3})
    alike.learn([e])
    told = said(alike, e)
    assert told["Metric/k/a_b"] == 1
    assert json.loads(told[OTHER])["fields"] == {"Metric/k/a_b": 2, "Metric/k/A_B": 3}


def test_a_birth_has_the_newest_live_values_in_order_of_time_and_no_long_text() -> None:
    registry = Registry()
    for e in (
        event("metric", "k", {"v": 1, "t": "x" * 5000}, wall_ms=50),
        event("metric", "k", {"v": 2, "t": "x" * 5000}, wall_ms=40),
    ):
        registry.learn([e])
        registry.metrics(e, historical=False)
    old = event("metric", "k", {"v": 9}, wall_ms=1)
    registry.metrics(old, historical=True)
    birth = registry.birth(Owner.NODE, 77)
    by_name = {m.name: m for m in birth}
    assert (by_name["Metric/k/v"].value, by_name["Metric/k/v"].timestamp_ms) == (2, 40)
    assert by_name["Metric/k/t"].value is None
    assert by_name["Fault/plc_lost/reason"].timestamp_ms == 77
    times = [m.timestamp_ms for m in birth]
    assert times == sorted(times)
    aliases = [m.alias for owner in Owner for m in registry.birth(owner, 0)]
    assert len(set(aliases)) == len(aliases)


def test_messages_never_have_one_metric_twice_at_one_time_and_divide_no_event() -> None:
    events = [[Metric(None, 1, 4, n, t), Metric(None, 2, 12, "y" * 10, t)] for n, t in enumerate((1, 1, 2, 3, 3, 4))]
    parts = list(messages(events, most=4, most_bytes=10_000))
    assert [m for part in parts for m in part] == [m for e in events for m in e]
    for part in parts:
        assert len(part) <= 4
        assert len({(m.alias, m.timestamp_ms) for m in part}) == len(part)
    assert len(list(messages(events, most=100, most_bytes=1))) == 6
    assert list(messages([], 1, 1)) == []


# ── payload, state on the disk, names ───────────────────────────────────────────────────────────────────────────────


def test_an_independent_reader_reads_what_we_write() -> None:
    metrics = [
        Metric("a", 1, 4, -5, 11), Metric("b", 2, 10, 0.1, 12, True), Metric("c", 3, 11, False, 13),
        Metric("d", 4, 12, "ü", 14), Metric("e", 5, 4, None, 15), Metric(None, 6, 4, 2**63 - 1, 16),
        Metric(None, 7, 4, -(2**63), 17),
    ]  # fmt: skip
    read = read_payload(payload.encode(metrics, 99, 255))
    assert (read["timestamp"], read["seq"]) == (99, 255)
    assert [m.get("name") for m in read["metrics"]] == ["a", "b", "c", "d", "e", None, None]
    assert [m["alias"] for m in read["metrics"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [m["timestamp"] for m in read["metrics"]] == [11, 12, 13, 14, 15, 16, 17]
    assert [m.get("is_historical", False) for m in read["metrics"]] == [False, True, False, False, False, False, False]
    assert [value_of(m, t) for m, t in zip(read["metrics"], (4, 10, 11, 12, 4, 4, 4), strict=True)] == [
        -5, 0.1, False, "ü", None, 2**63 - 1, -(2**63),
    ]  # fmt: skip
    assert "seq" not in read_payload(payload.encode([], 0, None))


def test_we_read_what_an_independent_writer_wrote() -> None:
    (metric,) = payload.decode(command("Node Control/Rebirth", timestamp=5)).metrics
    assert metric == Metric("Node Control/Rebirth", None, 11, True, 5)
    (metric,) = payload.decode(command(alias=9, value="x")).metrics
    assert (metric.name, metric.alias, metric.value) == (None, 9, "x")
    small = b"\x12\x09" + b"\x0a\x01n" + b"\x20\x01" + b"\x50\xfb\x01" + b"\x08\x05"[:0]
    (metric,) = payload.decode(small[:1] + bytes([len(small) - 2]) + small[2:]).metrics
    assert metric.value == -5, "Int8"


def test_we_read_what_pysparkplug_wrote() -> None:
    """An NCMD as pysparkplug 0.6.1 encodes it: no datatypes, no aliases. (It also reads our births; they are not vectors here
    because nothing of them would be independent of this repository.)"""
    data = bytes.fromhex("08d0d0e999a134121a0a144e6f646520436f6e74726f6c2f526562697274681805700112090a016e180650f9ff03")
    rebirth, other = payload.decode(data).metrics
    assert rebirth == Metric("Node Control/Rebirth", None, 0, True, 5)
    assert (other.name, other.value, other.timestamp_ms) == ("n", 65529, 6)


@pytest.mark.parametrize("data", [b"\xff", b"\x12\xff", b"\x12\x03\x0a\x01\xff", b"x" * 70_000, b"\x12\x00" * 101])
def test_a_payload_that_is_none_is_one_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="Sparkplug"):
        payload.decode(data)


def test_random_bytes_never_break_the_reader() -> None:
    rng = random.Random(5)
    for _ in range(3000):
        data = bytearray(command("Node Control/Rebirth"))
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            payload.decode(bytes(data))
        except ValueError:
            pass


def test_bd_seq_is_on_the_disk_before_it_is_used_and_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "sparkplug.json"
    saved = Saved(path)
    assert saved.next_bd_seq() == 0
    assert saved.next_bd_seq() == 1
    saved.keep([("node", "a", 1, 4)])
    again = Saved(path)
    assert (again.next_bd_seq(), again.metrics) == (2, [("node", "a", 1, 4)])
    again.bd_seq = 255
    assert again.next_bd_seq() == 0
    for damage in ("", "[]", '{"bd_seq": 256, "metrics": []}', '{"bd_seq": 1, "metrics": [["node", "a", 1, 99]]}',
                   '{"bd_seq": 1, "metrics": [["node", "a", 1, 4], ["line", "b", 1, 4]]}', "[" * 100_000):  # fmt: skip
        path.write_text(damage)
        assert Saved(path).bd_seq is None


def test_a_disk_that_refuses_stops_no_connection(tmp_path: Path) -> None:
    saved = Saved(tmp_path / "gone" / "sparkplug.json")
    assert [saved.next_bd_seq(), saved.next_bd_seq()] == [0, 1]


def test_a_flood_of_commands_is_cut() -> None:
    asked: list[str] = []

    class Desk:
        def request(self, source: str, name: str, value: object, issued_wall_ns: int) -> None:
            asked.append(name)

    clock = FakeClock()
    commands = AtMost(Desk(), clock)
    for n in range(200):
        commands.request("NCMD", f"{n}", 1, 5)
    assert asked == [f"{n}" for n in range(PER_MINUTE)]
    clock.advance(61)
    commands.request("NCMD", "later", 1, 5)
    assert asked[-1] == "later"


def test_names_come_from_the_place_and_bad_ones_are_refused() -> None:
    place = Place("acme", "site1", "area1", "line1", "cell1", "dev1")
    names = SparkplugSection().names(place)
    assert names == Names("site1", "dev1", "line1")
    assert names.topic("NBIRTH") == "spBv1.0/site1/NBIRTH/dev1"
    assert names.topic("DDATA") == "spBv1.0/site1/DDATA/dev1/line1"
    assert state_topic("scada") == "spBv1.0/STATE/scada"
    with pytest.raises(ValueError, match="XDATA"):
        names.topic("XDATA")
    for wrong in (
        {"group_id": "a/b"}, {"primary_host": "+"}, {"edge_node_id": "#"}, {"batch_records": 0}, {"max_metrics": 5},
        {"backlog_records_per_s": -1.0}, {"line_timeout_s": 1.0}, {"device_id": "x" * 200},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SparkplugSection(**wrong)


def test_the_reader_of_the_tests_is_strict() -> None:
    with pytest.raises(AssertionError):
        read_payload(b"\x12\x05\x0a\x01")
    with pytest.raises(AssertionError):
        value_of({"field": 13, "value": struct.unpack("<d", b"\0" * 8)[0]}, 4)
