"""Plain messages of the newest Events: what they hold, how often they come, and that they never replace the batches."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.config import LinkSection, load_device
from edge_runtime.errors import ConfigError, MissingExtraError
from edge_runtime.link.uns import KINDS, LIMIT_BYTES, Newest, encoder, iso
from edge_runtime.outbox.store import Outbox
from edge_runtime.wire.topics import Place

PLACE = Place("acme", "site1", "area1", "line1", "cell1", "dev1")
SECOND = 1_000_000_000


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox.db", "dev1", "boot")


def newest(outbox: Outbox, kind: str = "json") -> Newest:
    return Newest(PLACE, encoder(kind), outbox.last)


def test_a_message_has_the_event_and_its_time(outbox: Outbox) -> None:
    event = outbox.append("decision", "decision", {"part_seq": 5})
    plain = newest(outbox)
    plain.see(outbox.pending())
    ((topic, payload),) = plain.due(0)
    assert topic == PLACE.now("decision", "decision")
    told = json.loads(payload)
    assert told["ts"] == iso(event.wall_ns)
    assert told["ts"].endswith("Z")
    assert (told["device"], told["seq"], told["body"]) == ("dev1", 1, {"part_seq": 5})
    assert (told["wall_ns"], told["mono_ns"], told["chain"]) == (event.wall_ns, event.mono_ns, outbox.chain)


def test_cbor_is_the_same_in_fewer_bytes(outbox: Outbox) -> None:
    cbor2 = pytest.importorskip("cbor2")
    outbox.append("decision", "decision", {"part_seq": 5, "score": 0.5, "lot": None})
    as_json, as_cbor = newest(outbox), newest(outbox, "cbor")
    for plain in (as_json, as_cbor):
        plain.refresh()
    ((_, text),), ((_, packed),) = as_json.due(0), as_cbor.due(0)
    assert cbor2.loads(packed) == json.loads(text)
    assert len(packed) < len(text)


def test_at_most_one_a_second_and_then_the_newest(outbox: Outbox) -> None:
    plain = newest(outbox)
    after: dict[str, int] = {}
    told = []
    for tenth in range(31):
        outbox.append("decision", "decision", {"n": tenth})
        records = outbox.pending(after=after)
        after = {r.stream: r.seq for r in records}
        plain.see(records)
        told += [json.loads(payload)["body"]["n"] for _, payload in plain.due(tenth * SECOND // 10)]
    assert told == [0, 10, 20, 30]


def test_what_came_without_a_connection_is_told_at_the_next(outbox: Outbox) -> None:
    outbox.append("alarm", "hot", {})
    outbox.append("health", "health", {"health": "nominal"})
    outbox.ack({"alarm": 1})
    plain = newest(outbox)
    plain.refresh()
    assert {topic.split("/now/")[1] for topic, _ in plain.due(0)} == {"alarm/hot", "health/health"}
    assert plain.due(SECOND) == []


def test_an_older_event_never_replaces_a_newer_one(outbox: Outbox) -> None:
    outbox.append("alarm", "hot", {"n": 1})
    records = outbox.pending()
    outbox.append("alarm", "hot", {"n": 2})
    plain = newest(outbox)
    plain.refresh()
    plain.see(records)
    ((_, payload),) = plain.due(0)
    assert json.loads(payload)["body"] == {"n": 2}


def test_large_events_parts_of_blobs_and_too_many_kinds_are_left_out(outbox: Outbox) -> None:
    outbox.append("metric", "large", {"x": "y" * LIMIT_BYTES})
    outbox.append_blob("review", "frame", {}, b"x")
    outbox.append_many([("telemetry", f"kind {n}", {}) for n in range(KINDS + 50)], durable=False)
    plain = newest(outbox)
    plain.see(outbox.pending(1000))
    told = [topic for s in range(100) for topic, _ in plain.due(s * SECOND)]
    assert len(told) == KINDS
    assert all("/telemetry/kind_" in topic for topic in told)


@pytest.mark.parametrize(
    ("wall_ns", "text"),
    [(0, "1970-01-01T00:00:00Z"), (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456Z"),
     (-1_000, "1969-12-31T23:59:59.999999Z"),
     (2**63 - 1, "2262-04-11T23:47:16.854775Z")],
)  # fmt: skip
def test_times_are_iso_8601_utc(wall_ns: int, text: str) -> None:
    assert iso(wall_ns) == text


def test_a_missing_cbor2_is_told_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "cbor2":
            raise ModuleNotFoundError("No module named 'cbor2'", name="cbor2")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'gudgeon\[cbor\]'"):
        encoder("cbor")


def test_plain_messages_and_sparkplug_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gudgeon"):
        LinkSection(protocol="sparkplug", uns="json")
    path = tmp_path / "device.toml"
    path.write_text(
        '[device]\nid = "d"\nstate_dir = "s"\n[link]\nprotocol = "sparkplug"\n[sparkplug]\ngroup_id = "a/b"\n'
    )
    with pytest.raises(ConfigError, match="sparkplug: group_id"):
        load_device(path)
    path.write_text('[device]\nid = "d"\nstate_dir = "s"\n[sparkplug]\nprimary_hots = "x"\n')
    with pytest.raises(ConfigError, match=r"did you mean sparkplug\.primary_host"):
        load_device(path)
