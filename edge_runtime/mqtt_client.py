"""A paho client whose packets never wait for a timer of the kernel. Device and cloud share it.

- What it sends leaves at once (TCP_NODELAY, which paho never sets).
- What it reads is acknowledged at once (TCP_QUICKACK, Linux): a broker that has not set TCP_NODELAY, as Mosquitto by default,
  holds its next small packet back until then, which the kernel otherwise puts off by 40 ms. The kernel takes the
  option back by itself, so it is set after each reading (tcp(7)).
"""

from __future__ import annotations

import socket
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTErrorCode

QUICK_ACK = getattr(socket, "TCP_QUICKACK", None)


class PromptClient(mqtt.Client):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.on_socket_open = no_delay

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        code = super().loop_read(max_packets)
        sock: Any = self.socket()
        if sock is not None and QUICK_ACK is not None:
            sock.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)
        return code


def no_delay(client: mqtt.Client, _: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
