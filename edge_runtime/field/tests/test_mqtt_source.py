"""MQTT sensors without a broker: payloads, silence, retained messages, gaps. The broker is in test_source_contract.py."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.clock import FakeClock
from edge_runtime.field.mqtt_source import PAYLOAD_LIMIT_BYTES, MqttSource, find
from edge_runtime.field.sections import EndpointSection
from edge_runtime.field.tag import Gap, Quality, Reason, Report, Sample, Tag

FLOW = Tag("flow", "float64", topic="pump/1", path="flow.value", scale=2.0, stale_s=10.0, report_every_s=1e6)
HEAT = Tag("heat", "float64", topic="pump/1", path="temps.1", report_every_s=1e6)
PLAIN = Tag("plain", "float64", topic="plain", report_every_s=1e6)


class Rig:
    def __init__(self) -> None:
        self.clock, self.told = FakeClock(), list[Report]()
        endpoint = EndpointSection(name="broker", protocol="mqtt")
        self.source = MqttSource(endpoint, [FLOW, HEAT, PLAIN], self.told.append, clock=self.clock)
        for tag in (FLOW, HEAT, PLAIN):
            self.source._heard_ns[tag.name] = self.clock.monotonic_ns()

    def say(self, payload: object, topic: str = "pump/1", retained: bool = False) -> list[tuple[str, object, Reason]]:
        self.told.clear()
        self.clock.advance(1.0)
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.source.message(topic, data, retained)
        return [(r.tag, r.value, r.reason) for r in self.told if isinstance(r, Sample)]


@pytest.mark.parametrize(
    ("payload", "path", "value"),
    [
        (b"21.5", "", 21.5),
        (b" 7 ", "", 7),
        (b"true", "", True),
        (b'{"a": {"b": [1, 2.5]}}', "a.b.1", 2.5),
        (b'{"a": 1}', "b", None),
        (b"[1]", "3", None),
        (b"[1]", "x", None),
        (b"21,5", "", None),
        (b"\xff\xfe", "", None),
        (b"[" * 100_000, "", None),
        (b"1" * (PAYLOAD_LIMIT_BYTES + 1), "", None),
    ],
)
def test_a_path_leads_to_a_value_or_to_nothing(payload: bytes, path: str, value: object) -> None:
    assert find(payload, path) == value


@given(st.binary(max_size=200), st.text(max_size=20))
def test_no_payload_and_no_path_is_an_error(payload: bytes, path: str) -> None:
    find(payload, path)


def test_one_message_serves_several_tags_and_a_missing_one_is_bad() -> None:
    rig = Rig()
    assert rig.say({"flow": {"value": 4}, "temps": [1, 55.5]}) == [
        ("flow", 8, Reason.NONE),
        ("heat", 55.5, Reason.NONE),
    ]
    assert rig.say({"flow": {"value": 5}}) == [("flow", 10, Reason.NONE), ("heat", None, Reason.WRONG_TYPE)]
    assert rig.say(b"NaN", "plain") == [("plain", None, Reason.NOT_A_NUMBER)]
    assert rig.say({"value": 1}, "unknown") == []


def test_a_retained_message_may_be_old() -> None:
    rig = Rig()
    rig.say(b"3", "plain", retained=True)
    (sample,) = rig.told
    assert isinstance(sample, Sample)
    assert (sample.quality, sample.reason) == (Quality.UNCERTAIN, Reason.SOURCE_UNCERTAIN)


def test_silence_is_stale_and_ends_with_a_gap() -> None:
    rig = Rig()
    rig.source._on_connect(_Client(), None, None, _Reason(), None)
    rig.say({"flow": {"value": 4}, "temps": [1, 2]})
    rig.told.clear()
    rig.clock.advance(9.9)
    rig.source.look()
    assert rig.told == []
    rig.clock.advance(0.2)
    rig.source.look()
    rig.source.look()
    assert [(r.tag, r.reason) for r in rig.told if isinstance(r, Sample)] == [("flow", Reason.STALE)]
    rig.say({"flow": {"value": 4}, "temps": [1, 2]})
    gap, sample = rig.told
    assert isinstance(gap, Gap)
    assert isinstance(sample, Sample)
    assert gap.to_mono_ns - gap.from_mono_ns == pytest.approx(11.1e9, rel=1e-6)


def test_a_lost_connection_makes_every_tag_bad_once() -> None:
    rig = Rig()
    rig.say(b"3", "plain")
    rig.told.clear()
    rig.source.lost("gone")
    rig.source.lost("gone")
    assert [(r.tag, r.reason) for r in rig.told if isinstance(r, Sample)] == [
        (tag, Reason.NO_ANSWER) for tag in ("flow", "heat", "plain")
    ]
    rig.say(b"3", "plain")
    assert [type(r) for r in rig.told] == [Gap, Sample]
    assert rig.source.health()[0].gaps == 1


class _Reason:
    is_failure = False


class _Client:
    def subscribe(self, topics: object) -> None:
        assert topics == [("pump/1", 1), ("plain", 1)]
