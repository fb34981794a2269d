"""The node against an independent decoder and host, through Mosquitto."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.clock import SystemClock
from edge_runtime.config import BrokerSection
from edge_runtime.decide import points
from edge_runtime.decide.points import Point, WriteRequest
from edge_runtime.link.sparkplug.node import Node
from edge_runtime.link.sparkplug.payload import DataType
from edge_runtime.link.sparkplug.session import LineState, State
from edge_runtime.link.sparkplug.settings import SparkplugSection
from edge_runtime.link.sparkplug.tests.host import Host
from edge_runtime.link.sparkplug.tests.pair import BOOT, LINE_SIGN, PLACE, Pair, desk
from edge_runtime.link.sparkplug.tests.wire_reader import command
from edge_runtime.mqtt_access import Access
from edge_runtime.outbox.store import Outbox
from edge_runtime.tests.mosquitto import MOSQUITTO, mosquitto
from edge_runtime.tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto: apt-get install mosquitto")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as port:
        yield port


@pytest.fixture
def make(broker: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pair]]:
    monkeypatch.setattr("edge_runtime.link.connection.IDLE_S", 0.05)
    monkeypatch.setattr("edge_runtime.link.sparkplug.node.LINE_LOOK_S", 0.0)
    pairs: list[Pair] = []

    def one(**section: Any) -> Pair:
        pairs.append(Pair(broker, tmp_path, **section))
        return pairs[-1]

    yield one
    for pair in pairs:
        clean = pair.host._client
        clean.publish(pair.host.state_topic, b"", qos=1, retain=True).wait_for_publish(PATIENCE_S)
        pair.end()


def test_births_say_everything_once_and_live_values_follow(make: Callable[..., Pair]) -> None:
    pair = make()
    pair.host.say(True, 100)
    pair.outbox.append(*LINE_SIGN)
    pair.turn(lambda: "DBIRTH" in pair.host.kinds())
    assert pair.host.kinds()[:2] == ["NBIRTH", "DBIRTH"]
    names = pair.host.birth()
    assert names["Properties/software"]["value"] == "gudgeon"
    assert names["Properties/chain"]["value"] == pair.outbox.chain
    assert names["Metric/control/answered"]["value"] == 1, "the newest value, though it was stored before the birth"
    line = pair.host.birth("DBIRTH")
    assert line["Decision/score"]["datatype"] == 10
    assert line["Decision/score"]["is_null"]
    event = pair.outbox.append(
        "decision", "decision", {"part_seq": 7, "result": 2, "score": 0.75, "recipe": None, "lot": -3}
    )
    pair.turn(lambda: pair.host.values("Decision/seq", historical=False))
    assert pair.host.values("Decision/result") == [2]
    assert pair.host.values("Decision/score") == [0.75]
    assert pair.host.values("Decision/lot") == [-3]
    assert pair.host.values("Decision/recipe") == [None]
    assert pair.host.select("Decision/seq")[0].timestamp == event.wall_ns // 1_000_000
    pair.empty()
    counts = pair.node.counts
    assert (counts["connections"], counts["failures"], counts["records"], counts["acknowledged"]) == (1, 0, 2, 2)
    assert counts["bytes"] > 0


def test_nothing_is_said_before_the_primary_host_is_online_and_after_it_left(make: Callable[..., Pair]) -> None:
    pair = make()
    pair.host.say(False, 100)
    pair.outbox.append_many([("fault", "plc_lost", {"reason": "x"}), ("alarm", "a", {"n": 1})])
    pair.turn(lambda: pair.node.state is State.WAITING)
    for _ in range(5):
        pair.node.turn()
    assert pair.host.seen == []
    assert pair.outbox.depth() == 2
    pair.host.say(True, 101)
    pair.empty()
    assert pair.host.values("Alarm/a/n", historical=True) == [1]
    pair.host.say(False, 99)  # older than what is known: a will that comes late
    for _ in range(5):
        pair.node.turn()
    assert pair.node.state is State.BORN
    pair.host.say(False, 102)
    pair.turn(lambda: pair.host.deaths)
    assert pair.host.deaths == pair.host.bd_seqs
    pair.turn(lambda: pair.node.state is State.WAITING)
    pair.outbox.append("alarm", "a", {"n": 2})
    for _ in range(5):
        pair.node.turn()
    assert pair.outbox.depth() == 1
    assert pair.host.values("Alarm/a/n") == [1]
    pair.host.say(True, 103)
    pair.empty()
    assert pair.host.values("Alarm/a/n") == [1, 2]
    assert pair.host.bd_seqs == [0, 1]
    assert pair.host.select("Alarm/a/n")[1].historical


@pytest.mark.parametrize("protocol", [0, 1], ids=["mqtt-5", "mqtt-3.1.1"])
def test_a_broken_connection_is_a_death_with_the_bd_seq_of_its_birth(make: Callable[..., Pair], protocol: int) -> None:
    pair = make()
    pair.node._protocol, pair.node._protocol_proven = protocol, True
    pair.host.say(True, 100)
    pair.turn(lambda: pair.host.node_online)
    for n in range(3):
        pair.cut()
        pair.turn(lambda n=n: len(pair.host.deaths) == n + 1)  # type: ignore[misc]
        pair.turn(lambda: pair.host.node_online)
    assert pair.host.deaths == [0, 1, 2]
    assert pair.host.bd_seqs == [0, 1, 2, 3]


def test_bd_seq_goes_on_over_restarts_and_wraps(make: Callable[..., Pair]) -> None:
    pair = make()
    pair.host.say(True, 100)
    pair.node._saved.bd_seq = 253
    for n in range(4):
        pair.turn(lambda n=n: len(pair.host.bd_seqs) == n + 1)  # type: ignore[misc]
        pair.node.close()
        pair.host.wait(lambda n=n: len(pair.host.deaths) == n + 1)
        pair.node = pair.new_node()
    assert pair.host.bd_seqs == [254, 255, 0, 1]
    assert pair.host.deaths == [254, 255, 0, 1]


def test_seq_wraps_after_255_and_counts_node_and_line_together(make: Callable[..., Pair]) -> None:
    pair = make(batch_records=1)
    pair.host.say(True, 100)
    pair.outbox.append(*LINE_SIGN)
    pair.turn(lambda: "DBIRTH" in pair.host.kinds())
    pair.clock.stop()  # however long it takes, the line has not fallen silent
    for n in range(300):
        pair.outbox.append_many([("decision", "decision", {"part_seq": n})], durable=False)
        pair.outbox.append_many([("link", "probe", {"n": n})], durable=False)
    pair.turn(lambda: len(pair.host.values("Decision/part_seq", historical=False)) == 300)
    pair.turn(lambda: len(pair.host.values("Link/probe/n", historical=False)) == 300)
    births = [i for i, kind in enumerate(pair.host.kinds()) if kind == "NBIRTH"]
    seqs = [p["seq"] for _, _, p in pair.host.seen[births[-1] :]]
    assert len(seqs) > 512
    assert seqs == [n % 256 for n in range(len(seqs))]
    assert pair.host.values("Decision/part_seq") == list(range(300))


def test_a_host_gets_a_rebirth_by_name_and_by_alias_with_the_same_bd_seq(make: Callable[..., Pair]) -> None:
    pair = make()
    pair.host.say(True, 100)
    pair.outbox.append(*LINE_SIGN)
    pair.turn(lambda: "DBIRTH" in pair.host.kinds())
    pair.host.command(command("Node Control/Rebirth", False))
    pair.host.command(command("Node Control/Rebirth"))
    pair.host.command(command("Node Control/Rebirth"))
    pair.outbox.append("alarm", "kept_back", {})
    pair.turn(lambda: len(pair.host.bd_seqs) == 2 and pair.host.kinds()[-1] != "NBIRTH")
    alias = pair.host.birth()["Node Control/Rebirth"]["alias"]
    pair.clock.ahead_ns += 3_000_000_000
    pair.outbox.append(*LINE_SIGN)
    pair.host.command(command(alias=alias))
    pair.turn(lambda: len(pair.host.bd_seqs) == 3 and len(pair.host.lines_online) == 1)
    assert pair.host.bd_seqs == [0, 0, 0]
    assert pair.host.deaths == []


def test_a_metric_that_no_birth_told_makes_a_rebirth_first(make: Callable[..., Pair]) -> None:
    pair = make()
    pair.host.say(True, 100)
    pair.turn(lambda: pair.host.node_online)
    pair.outbox.append("metric", "pump", {"temperature": {"left": 20, "right": 21.5}, "on": True, "tags": ["a"]})
    pair.turn(lambda: pair.host.values("Metric/pump/seq"))
    assert len(pair.host.bd_seqs) == 2
    assert pair.host.values("Metric/pump/temperature/left") == [20]
    assert pair.host.values("Metric/pump/tags") == ['["a"]']
    pair.outbox.append("metric", "pump", {"temperature": {"left": 20.5, "right": 3}})
    pair.turn(lambda: len(pair.host.values("Metric/pump/seq")) == 2)
    assert len(pair.host.bd_seqs) == 3, "a whole number that becomes a fraction is another datatype"
    assert pair.host.values("Metric/pump/temperature/left") == [20, 20.5]
    assert pair.host.birth()["Metric/pump/temperature/left"]["datatype"] == 10
    pair.node.close()
    pair.node = pair.new_node()
    pair.turn(lambda: len(pair.host.bd_seqs) == 4)
    assert "Metric/pump/on" in pair.host.birth(), "what was learnt is known after a restart"


def test_what_a_host_may_not_ask_is_refused_and_told(make: Callable[..., Pair]) -> None:
    pair = make()
    pair.host.say(True, 100)
    pair.turn(lambda: pair.host.node_online)
    pair.host.command(b"\xff\xff")
    pair.host.command(command("Node Control/Rebirth"), retain=True)
    pair.host.command(b"", retain=True)
    pair.host.command(command("Node Control/Reboot", timestamp=5))
    pair.host.command(command("Outputs/gate", "open"), message="DCMD", device="line1")
    pair.turn(lambda: len(pair.host.values("Command/refused/name")) == 2)
    assert pair.host.values("Command/refused/name") == ["Node Control/Reboot", "Outputs/gate"]
    assert pair.host.values("Command/refused/source") == ["NCMD", "DCMD"]
    assert all("commands.allow_unsigned_sparkplug" in reason for reason in pair.host.values("Command/refused/reason"))


def test_what_may_be_written_is_in_the_birth_and_reaches_the_commands(make: Callable[..., Pair]) -> None:
    asked: list[tuple[object, ...]] = []

    class Desk:
        def request(self, source: str, name: str, value: object, issued_wall_ns: int) -> None:
            asked.append((source, name, value, issued_wall_ns))

    pair = make()
    pair.node = pair.new_node(Desk(), {"gate": DataType.BOOLEAN})
    pair.host.say(True, 100)
    pair.outbox.append(*LINE_SIGN)
    pair.turn(lambda: "DBIRTH" in pair.host.kinds())
    gate = pair.host.birth("DBIRTH")["gate"]
    assert (gate["datatype"], gate["is_null"]) == (11, True)
    pair.host.command(command(alias=gate["alias"], timestamp=5), message="DCMD", device="line1")
    pair.turn(lambda: asked)
    assert asked == [("DCMD", "gate", True, 5_000_000)]


def test_a_command_of_the_host_passes_the_desk_once(make: Callable[..., Pair]) -> None:
    pair = make()
    allowed = points.Commands(("speed",), True, points={"speed": Point(200, 0, 500)})
    handed: list[WriteRequest] = []
    at_desk = desk(pair.outbox, pair.folder, allowed, pair.clock, handed)
    pair.node = pair.new_node(at_desk, {"speed": DataType.INT64})
    pair.host.say(True, 100)
    pair.outbox.append(*LINE_SIGN)
    pair.turn(lambda: "DBIRTH" in pair.host.kinds())
    alias = pair.host.birth("DBIRTH")["speed"]["alias"]
    now_ms = pair.clock.wall_ns() // 1_000_000
    for value, timestamp in ((250, now_ms), (250, now_ms), (700, now_ms + 1), (100, now_ms - 60_000)):
        pair.host.command(command(alias=alias, value=value, timestamp=timestamp), message="DCMD", device="line1")
    pair.turn(lambda: handed)
    assert [(r.source, r.name, r.value) for r in handed] == [("DCMD", "speed", 250)]
    pair.outbox.append("command", "done", {"id": handed[0].id})
    at_desk.step()
    pair.turn(lambda: pair.host.values("Command/refused/seq") and len(pair.host.values("Command/replayed/seq")) == 2)
    assert pair.host.values("Command/accepted/value") == [250]
    assert "outside of 0 to 500" in pair.host.values("Command/refused/reason")[0]
    assert len(handed) == 1


def test_the_line_dies_and_comes_back_as_the_outbox_tells(make: Callable[..., Pair]) -> None:
    pair = make()
    pair.host.say(True, 100)
    pair.outbox.append(*LINE_SIGN)
    pair.turn(lambda: pair.node.line is LineState.BORN)
    pair.outbox.append("decision", "decision", {"part_seq": 1})
    pair.turn(lambda: pair.host.values("Decision/part_seq") == [1])
    pair.outbox.append("fault", "plc_lost", {"reason": "timeout"})
    pair.turn(lambda: "DDEATH" in pair.host.kinds())
    pair.outbox.append("decision", "unrecorded", {"part_seq": 2})
    pair.turn(lambda: pair.host.values("Fault/plc_lost/reason") == ["timeout"])
    assert pair.host.values("Decision/unrecorded/part_seq") == []
    pair.outbox.append("health", "plc_connected", {"part_seq": 2})
    pair.turn(lambda: pair.host.values("Decision/unrecorded/part_seq") == [2])
    assert pair.host.select("Decision/unrecorded/part_seq")[0].historical
    assert pair.host.birth("DBIRTH")["Decision/unrecorded/part_seq"]["value"] == 2, "a birth tells the newest"
    pair.empty()
    pair.clock.ahead_ns += 11_000_000_000  # `control` is silent for longer than line_timeout_s
    pair.turn(lambda: pair.host.kinds().count("DDEATH") == 2)


def test_the_backlog_is_historical_in_order_paced_and_overtaken_by_what_is_live(make: Callable[..., Pair]) -> None:
    pair = make(backlog_records_per_s=200, batch_records=20)
    events = [pair.outbox.append("fault", "x", {"n": n}, durable=False) for n in range(500)]
    pair.host.say(True, 100)
    pair.clock.stop()

    def turn() -> None:
        pair.node.turn()
        pair.clock.ahead_ns += 10_000_000

    until(lambda: pair.host.values("Fault/x/n"), turn)
    pair.outbox.append("alarm", "now", {"n": 1})
    pair.turn(lambda: pair.host.values("Alarm/now/n"))
    overtaken = len(pair.host.values("Fault/x/n"))
    assert overtaken < 400
    until(lambda: len(pair.host.values("Fault/x/n")) == 500, turn)
    assert pair.clock.ahead_ns > 1.3e9, "500 records at 200 a second, after a burst of 200"
    found = pair.host.select("Fault/x/n")
    assert [p.value for p in found] == list(range(500))
    assert all(p.historical for p in found)
    assert [p.timestamp for p in found] == [e.wall_ns // 1_000_000 for e in events]
    assert pair.host.values("Alarm/now/n", historical=False) == [1]
    pair.empty()


def test_what_was_not_confirmed_comes_again_as_historical(make: Callable[..., Pair]) -> None:
    pair = make(confirm_after_s=5.0)
    pair.host.say(True, 100)
    pair.turn(lambda: pair.host.node_online)
    event = pair.outbox.append("alarm", "a", {"n": 1})
    pair.turn(lambda: pair.host.values("Alarm/a/n", historical=False) == [1])
    for _ in range(5):
        pair.node.turn()
    assert pair.outbox.depth() == 1, "the host could have died unseen meanwhile"
    pair.cut()
    pair.turn(lambda: pair.host.values("Alarm/a/n", historical=True) == [1])
    assert {p.timestamp for p in pair.host.select("Alarm/a/n")} == {event.wall_ns // 1_000_000}
    pair.clock.ahead_ns += 6_000_000_000
    pair.empty()


def test_a_node_that_slept_hears_of_the_hosts_death_before_it_acknowledges(make: Callable[..., Pair]) -> None:
    pair = make(confirm_after_s=5.0)
    pair.host.say(True, 100)
    pair.turn(lambda: pair.host.node_online)
    pair.outbox.append("alarm", "a", {"n": 1})
    pair.turn(lambda: pair.host.values("Alarm/a/n") and not pair.node._delivery.under_way)
    pair.host.say(False, 101)
    pair.clock.ahead_ns += 60_000_000_000
    pair.turn(lambda: pair.node.state is State.WAITING)
    assert pair.outbox.depth() == 1


def test_records_of_one_millisecond_go_in_messages_of_their_own(make: Callable[..., Pair]) -> None:
    pair = make()
    pair.host.say(True, 100)
    pair.outbox.append_many([("fault", "x", {"n": n}) for n in range(5)])
    pair.empty()
    assert pair.host.values("Fault/x/n") == list(range(5))


def test_a_record_that_cannot_be_read_holds_nothing_up(make: Callable[..., Pair]) -> None:
    pair = make()
    for n in range(3):
        pair.outbox.append("alarm", "a", {"n": n})
    with sqlite3.connect(pair.folder / "outbox.db") as db:
        db.execute("UPDATE event_alarm SET data = x'7b7d' WHERE seq = 2")
    db.close()
    pair.host.say(True, 100)
    pair.empty()
    assert pair.host.values("Alarm/a/n") == [0, 2]
    assert pair.host.values("Fault/record_unreadable/stream") == ["alarm"]
    assert pair.host.values("Fault/record_unreadable/seq")[-1] == 1


def test_without_a_primary_host_the_broker_is_enough(make: Callable[..., Pair]) -> None:
    pair = make(primary_host="", group_id="Plant A", edge_node_id="Press 3", confirm_after_s=9.0)
    pair.host.stop()
    pair.host = Host(pair.broker, group="Plant A", node="Press 3")
    pair.outbox.append("alarm", "a", {})
    pair.empty()
    assert pair.host.kinds()[0] == "NBIRTH"


def test_a_broker_that_is_killed_and_comes_back_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.link.connection.IDLE_S", 0.05)
    with mosquitto(tmp_path) as port:
        pair = Pair(port, tmp_path)
        pair.host.say(True, 100)
        pair.turn(lambda: pair.host.node_online)
        pair.outbox.append("alarm", "a", {"n": 1})
        pair.empty()
    first = pair.host
    for n in (2, 3):
        pair.outbox.append("alarm", "a", {"n": n})
        pair.node.turn()
    with mosquitto(tmp_path, port=port):
        pair.host = Host(port)
        pair.turn(lambda: pair.node.state is State.WAITING)  # the broker has forgotten the STATE
        pair.host.say(True, 101)
        pair.empty()
        assert first.values("Alarm/a/n") == [1]
        assert pair.host.values("Alarm/a/n", historical=True) == [2, 3]
        assert pair.host.bd_seqs[-1] > first.bd_seqs[-1]
        first.stop()
        pair.end()


def test_a_host_that_dies_takes_nothing_with_it(make: Callable[..., Pair]) -> None:
    """Its successor gets what the broker had taken but could not hand on any more."""
    pair = make(confirm_after_s=0.5)
    pair.host.say(True, 100)
    pair.turn(lambda: pair.host.node_online)
    for n in range(40):
        pair.outbox.append("alarm", "a", {"n": n})
        pair.node.turn()
        if n == 20:
            pair.host.die()
    pair.turn(lambda: pair.node.state is State.WAITING)
    assert pair.outbox.depth() >= 19
    first, pair.host = pair.host, Host(pair.broker)
    pair.host.say(True, 1001)  # later than the will of the first
    pair.empty()
    first.stop()
    assert first.breaches == []
    came = first.values("Alarm/a/n") + pair.host.values("Alarm/a/n")
    assert set(came) == set(range(40))


def test_a_broker_that_drops_what_we_publish_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mosquitto says nothing where its access list forbids a QoS 0 message."""
    monkeypatch.setattr("edge_runtime.link.connection.IDLE_S", 0.05)
    with mosquitto(tmp_path, acl="topic read spBv1.0/#\ntopic write spBv1.0/STATE/#\n") as port:
        pair = Pair(port, tmp_path)
        pair.host.say(True, 100)
        pair.outbox.append("alarm", "a", {})
        pair.turn(lambda: pair.node.state is State.BORN)
        pair.clock.ahead_ns += 11_000_000_000
        pair.turn(lambda: pair.outbox.last("fault"))
        assert pair.host.seen == []
        assert pair.outbox.depth() == 2, "what nobody got is kept"
        fault = pair.outbox.last("fault")
        assert fault is not None
        assert fault.kind == "birth_not_passed_on"
        pair.end()


def test_the_access_list_of_the_how_to_is_enough_and_keeps_others_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.link.connection.IDLE_S", 0.05)
    text = (Path(__file__).parents[4] / "docs/how-to/sparkplug.md").read_text()
    acl = text.split("# Mosquitto, acl_file\n")[1].split("```")[0]
    with mosquitto(tmp_path, acl=acl) as port:
        host = Host(port, node="press-3", username="scada")
        host.say(True, 100)
        outbox = Outbox(tmp_path / "outbox.db", "press-3", BOOT)
        outbox.append_many([LINE_SIGN, ("decision", "decision", {"part_seq": 1})])
        access = Access(BrokerSection(username="press-3"))
        node = Node(
            SparkplugSection(primary_host="scada", confirm_after_s=0.0), replace(PLACE, device="press-3"), BOOT,
            "127.0.0.1", port, outbox, desk(outbox, tmp_path, points.Commands(), SystemClock()), tmp_path, access=access,
        )  # fmt: skip
        until(lambda: outbox.depth() == 0, node.turn)
        stranger = Host(port, node="press-3", username="stranger")
        stranger.command(command("Node Control/Rebirth"))
        stranger.say(False, 200)
        for _ in range(10):
            node.turn()
        assert (node.state, len(host.bd_seqs)) == (State.BORN, 1)
        assert stranger.seen == []
        host.command(command("Node Control/Rebirth"))
        until(lambda: len(host.bd_seqs) == 2, node.turn)
        node.close()
        host.wait(lambda: len(host.deaths) == 1)
        assert host.values("Decision/part_seq") == [1]
        assert host.breaches == []
        for one in (host, stranger):
            one.stop()
        outbox.close()
