"""The bucket and the shares, by simulation with a clock of our own."""

from __future__ import annotations

import socket

import paho.mqtt.client as mqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_runtime.link.rate import (
    LEAST_BURST_BYTES,
    PUBLISH_BYTES,
    TCP_IP_HEADER_BYTES,
    TCP_SEGMENT_BYTES,
    Bucket,
    LineSettings,
    Pace,
    wire_bytes,
)

S = 1_000_000_000


@given(
    st.integers(128, 10**6),
    st.lists(st.tuples(st.integers(0, 3 * S), st.integers(1, 60_000)), min_size=1, max_size=60),
)
def test_never_more_than_the_rate_the_burst_and_one_message(rate: int, wishes: list[tuple[int, int]]) -> None:
    bucket, now_ns, sent, largest = Bucket(rate, 0), 0, 0, 0
    for pause_ns, size in wishes:
        now_ns += pause_ns
        if bucket.level(now_ns) >= 1:
            bucket.take(size, now_ns)
            sent, largest = sent + size, max(largest, size)
        else:
            opens_ns = now_ns + round(bucket.wait_s(now_ns) * 1e9)
            assert opens_ns > now_ns
            assert Bucket.level(bucket, opens_ns + 1000) >= 1
            now_ns = opens_ns + 1000
    assert sent <= max(LEAST_BURST_BYTES, rate) + rate * now_ns / 1e9 + largest + 1


def test_time_that_runs_backwards_fills_nothing() -> None:
    bucket = Bucket(1000, 10 * S)
    bucket.take(10_000, 10 * S)
    assert bucket.level(5 * S) == bucket.level(10 * S) < 0


def simulate(settings: LineSettings, seconds: float, live: bool, backlog: bool, size: int = 500) -> dict[str, int]:
    """Both lanes greedy, where they have anything at all; bytes by lane."""
    pace, now_ns, sent = Pace(settings, 0), 0, {"live": 0, "backlog": 0}
    waits = {"live": live, "backlog": backlog}
    while now_ns < seconds * 1e9:
        while pace.open(now_ns):
            for name in pace.order():
                if waits[name]:
                    pace.sent(name, size, now_ns)
                    sent[name] += size
                    break
                pace.nothing_from(name)
            else:
                break
        now_ns += S // 50
    return sent


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.95])
def test_two_greedy_lanes_share_the_line_by_weight(share: float) -> None:
    sent = simulate(LineSettings(rate_bytes_per_s=20_000, backlog_share=share), 100, live=True, backlog=True)
    total = sent["live"] + sent["backlog"]
    assert total == pytest.approx(20_000 * 100, rel=0.03)
    assert sent["backlog"] / total == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("live", [True, False])
def test_what_one_lane_leaves_the_other_takes(live: bool) -> None:
    sent = simulate(LineSettings(rate_bytes_per_s=20_000, backlog_share=0.5), 100, live=live, backlog=not live)
    assert sent["live" if live else "backlog"] == pytest.approx(20_000 * 100, rel=0.03)


def test_a_lane_that_was_idle_has_not_saved_anything_up() -> None:
    pace = Pace(LineSettings(rate_bytes_per_s=1000, backlog_share=0.5), 0)
    for _ in range(1000):
        pace.nothing_from("live")
        pace.sent("backlog", 1000, 0)
    pace.nothing_from("live")
    turns = []
    for _ in range(10):
        turns.append(pace.order()[0])
        pace.sent(turns[-1], 1000, 0)
    assert turns.count("live") == 5


def test_what_is_urgent_overdraws_and_the_others_pay() -> None:
    pace = Pace(LineSettings(rate_bytes_per_s=1000), 0)
    pace.sent("live", 5000, 0)
    assert not pace.open(0)
    pace.sent("urgent", 3000, 0)
    assert pace.wait_s(0) == pytest.approx((5000 + 3000 - LEAST_BURST_BYTES) / 1000, abs=0.01)
    assert pace.open(5 * S)


def test_another_rate_counts_at_once_and_the_same_one_keeps_its_debt() -> None:
    pace = Pace(LineSettings(rate_bytes_per_s=1000), 0)
    pace.sent("live", 50_000, 0)
    pace.set(LineSettings(rate_bytes_per_s=1000, metered=True), 0)
    assert not pace.open(S)
    pace.set(LineSettings(), S)
    assert pace.open(S)
    assert pace.wait_s(S) == 0.0


def test_a_batch_of_a_slow_line_is_small() -> None:
    assert Pace(LineSettings(), 0).batch_bytes(262_144) == 262_144
    assert Pace(LineSettings(rate_bytes_per_s=10**9), 0).batch_bytes(262_144) == 262_144
    assert Pace(LineSettings(rate_bytes_per_s=20_000), 0).batch_bytes(262_144) == 10_000
    assert Pace(LineSettings(rate_bytes_per_s=1200), 0).batch_bytes(262_144) == 2048


def test_the_count_of_a_publish_is_what_a_broker_receives() -> None:
    """Without TLS, and without the headers of TCP and IP, which no program sees; up to three bytes of a length more."""
    server = socket.create_server(("127.0.0.1", 0))
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.connect("127.0.0.1", server.getsockname()[1])
    peer, _ = server.accept()
    peer.settimeout(60)
    peer.recv(4096)  # CONNECT
    peer.sendall(bytes([0x20, 3, 0, 0, 0]))  # CONNACK
    client.loop_read()
    topic = "v1/acme/site1/area1/line1/cell1/dev1/events"
    for size in (0, 100, 20_000, 300_000):
        client.publish(topic, b"x" * size, qos=1)
        got = 0
        expected = wire_bytes(size, len(topic), tls=False)
        expected -= -(-(size + len(topic) + 2 + PUBLISH_BYTES) // TCP_SEGMENT_BYTES) * TCP_IP_HEADER_BYTES
        while got < expected - 3:
            if client.want_write():
                client.loop_write()
            got += len(peer.recv(1 << 20))
        assert expected - 3 <= got <= expected
    peer.close()
    server.close()


def test_the_headers_are_counted() -> None:
    assert wire_bytes(100, 50, tls=False) == 100 + 50 + 2 + 8 + 52
    assert wire_bytes(100, 50, tls=True) == wire_bytes(100, 50, tls=False) + 22
    assert wire_bytes(100_000, 50, tls=True) > 100_000 + 70 * 52
