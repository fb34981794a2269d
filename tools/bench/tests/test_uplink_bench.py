"""`gudgeon bench uplink`: the floor speaks MQTT that can be checked byte by byte; the rest is measured on real processes."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.link.sender import packed
from edge_runtime.outbox.store import Outbox
from edge_runtime.wire.batch import decode_ack, encode_batch
from tools.bench import main, raw_mqtt
from tools.bench.receiver import acknowledge
from tools.chaos.pair import mosquitto


def test_the_packets_are_mqtt_3_1_1() -> None:
    assert raw_mqtt.connect_packet("raw") == b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x00\x00\x03raw"
    assert raw_mqtt.publish_packet("a/b", b"xy", 258) == b"\x32\x09\x00\x03a/b\x01\x02xy"
    assert raw_mqtt.publish_packet("a", b"", 65536)[-2:] == b"\x00\x01", "ids begin again at 1, never at 0"


@pytest.mark.parametrize(
    ("size", "data"), [(0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (268435455, b"\xff\xff\xff\x7f")]
)
def test_remaining_length(size: int, data: bytes) -> None:
    assert raw_mqtt.remaining_length(size) == data


def test_pubacks_are_counted_across_reads() -> None:
    assert raw_mqtt.pubacks(b"\x40\x02\x00\x01\x40\x02") == (1, b"\x40\x02")
    with pytest.raises(ConnectionError, match="other than PUBACKs"):
        raw_mqtt.pubacks(b"\x40\x02\x00\x01\x30\x02\x00\x02")


def test_never_more_than_the_window_is_under_way() -> None:
    """A broker that acknowledges one packet at a time, and only when no more come by themselves."""
    most, server = 0, socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        nonlocal most
        peer, _ = server.accept()
        peer.recv(100)
        peer.sendall(b"\x20\x02\x00\x00")
        waiting = 0
        peer.settimeout(0.05)
        for _ in range(12):
            try:
                waiting += peer.recv(1000).count(b"\x32")
            except TimeoutError:
                pass
            most = max(most, waiting)
            waiting -= 1
            peer.sendall(b"\x40\x02\x00\x01")

    thread = threading.Thread(target=serve)
    thread.start()
    client = raw_mqtt.RawClient(server.getsockname()[1])
    assert client.publish_ns([raw_mqtt.publish_packet("t", b"", 1)] * 12, 3) > 0
    thread.join()
    client.close()
    server.close()
    assert most == 3


def test_the_receiver_acknowledges_what_came(tmp_path: Path) -> None:
    outbox, key = Outbox(tmp_path / "outbox.db", "dev", "boot"), Ed25519PrivateKey.generate()
    outbox.append_many([("decision", "k", {"n": n}) for n in range(30)])
    lines = [r.line for r in outbox.pending(20)]
    payload = encode_batch(outbox.checkpoint(), lines, key.sign)
    small = packed(payload)
    assert zstandard.ZstdDecompressor().decompress(small) == payload
    for sent in (payload, small):
        ack = decode_ack(acknowledge(sent))
        assert (ack.chain, ack.committed) == (outbox.chain, {"decision": 20})


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_uplink_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if mosquitto() is None:
        pytest.skip("Mosquitto is not installed")
    args = ["uplink", "--count", "20", "--folder", str(tmp_path)]
    assert main.main([*args, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["records"], result["record_bytes"] > 400) == (1000, True)
    floor, *others = result["rates"]
    assert (floor["ratio"], result["rows"][0]["ratio_p50"]) == (1.0, 1.0)
    assert len(others) == 3
    assert [set(cpu) - {"uplink", "broker"} for cpu in result["cpu_us"].values()] == [{"receiver"}, {"cloud"}]
    assert all(0 < r["ratio_min"] <= r["ratio"] <= r["ratio_max"] for r in others)
    assert all(sum(r["histogram_ms"].values()) == r["samples"] == 20 for r in result["latency"]["rows"])
