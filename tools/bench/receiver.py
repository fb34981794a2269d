"""A receiver that acknowledges and does nothing else, so that the uplink's own cost is seen apart from the cloud's.

Started as ``python -m tools.bench.receiver --port PORT --ready FILE``. It believes what it is sent: no signature, no hash,
no store. The acknowledgement says what the last record of a batch says of itself.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import zstandard
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_runtime.child import end_with_parent, stop_event
from edge_runtime.wire.batch import PAYLOAD_LIMIT_BYTES, ZSTD_MAGIC, Ack, encode_ack
from edge_runtime.wire.topics import parse, subscription


def acknowledge(payload: bytes) -> bytes:
    """The acknowledgement of a batch of one stream."""
    if payload.startswith(ZSTD_MAGIC):
        payload = zstandard.ZstdDecompressor().decompress(payload, max_output_size=PAYLOAD_LIMIT_BYTES)
    header, last = json.loads(payload[: payload.index(b"\n")]), json.loads(payload[payload.rindex(b"\n") + 1 :])
    return encode_ack(Ack(header["chain"], {last["stream"]: last["seq"]}, counter=header["counter"]))


def on_message(client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
    place, _leaf = parse(message.topic)
    client.publish(place.topic("ack"), acknowledge(bytes(message.payload)), qos=1)


def no_delay(client: mqtt.Client, _: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ready", type=Path, required=True)
    args = parser.parse_args(argv)
    end_with_parent()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "receiver", protocol=MQTTProtocolVersion.MQTTv5)
    client.on_socket_open = no_delay
    client.on_connect = lambda c, *_: c.subscribe(subscription("events"), qos=1)
    client.on_subscribe = lambda *_: args.ready.touch()
    client.on_message = on_message
    client.connect("127.0.0.1", args.port)
    client.loop_start()
    stop_event().wait()
    client.disconnect()
    client.loop_stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
