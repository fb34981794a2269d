"""The floor of `gudgeon bench uplink`: MQTT 3.1.1 by hand on a bare socket, QoS 1, PUBACKs counted and nothing else.

Packets are encoded before the time is taken, so that what remains is two system calls for each window and the broker.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

CONNACK_BYTES = 4
PUBACK = 0x40
PUBACK_BYTES = 4
TIMEOUT_S = 30.0
READ_BYTES = 65536


def remaining_length(size: int) -> bytes:
    """MQTT's variable byte integer."""
    out = bytearray()
    while True:
        size, digit = divmod(size, 128)
        out.append(digit | (0x80 if size else 0))
        if not size:
            return bytes(out)


def text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def connect_packet(client_id: str, keepalive_s: int = 0) -> bytes:
    body = text("MQTT") + bytes((4, 0x02)) + keepalive_s.to_bytes(2, "big") + text(client_id)
    return b"\x10" + remaining_length(len(body)) + body


def publish_packet(topic: str, payload: bytes, packet_id: int) -> bytes:
    """QoS 1; ids go from 1 to 65535 and begin again."""
    body = text(topic) + (1 + (packet_id - 1) % 65535).to_bytes(2, "big") + payload
    return b"\x32" + remaining_length(len(body)) + body


class RawClient:
    """One connection. OSError where the broker refuses or ends it."""

    def __init__(self, port: int, client_id: str = "raw") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(connect_packet(client_id))
        answer = self._socket.recv(CONNACK_BYTES, socket.MSG_WAITALL)
        if answer[:1] != b"\x20" or answer[3:] != b"\x00":
            raise ConnectionError(f"the broker answered {answer.hex()}, expected a CONNACK with code 0")

    def publish_ns(self, packets: Sequence[bytes], window: int) -> int:
        """Send all, never more than `window` without their PUBACK; nanoseconds until the last PUBACK."""
        sent = confirmed = 0
        rest = b""
        begin_ns = time.perf_counter_ns()
        while confirmed < len(packets):
            upto = min(len(packets), confirmed + window)
            if upto > sent:
                self._socket.sendall(b"".join(packets[sent:upto]))
                sent = upto
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise ConnectionError(f"the broker closed the connection after {confirmed} of {len(packets)} PUBACKs")
            count, rest = pubacks(rest + data)
            confirmed += count
        return time.perf_counter_ns() - begin_ns

    def close(self) -> None:
        self._socket.close()


def pubacks(data: bytes) -> tuple[int, bytes]:
    """How many there are in what was read, and the beginning of the next one. Nothing else may come."""
    count = len(data) // PUBACK_BYTES
    whole = count * PUBACK_BYTES
    if any(first != PUBACK for first in data[::PUBACK_BYTES]):
        raise ConnectionError(f"the broker sent something other than PUBACKs: {data[:16].hex()}")
    return count, data[whole:]
