"""No packet of ours waits for a timer of the kernel."""

from __future__ import annotations

import socket
import threading
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from edge_runtime.mqtt_client import QUICK_ACK, PromptClient


class Socket:
    def __init__(self) -> None:
        self.options: list[tuple[int, int, int]] = []

    def setsockopt(self, *option: int) -> None:
        self.options.append(option)  # type: ignore[arg-type]


@pytest.mark.skipif(QUICK_ACK is None, reason="needs Linux")
def test_each_reading_is_acknowledged_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Socket()
    monkeypatch.setattr(mqtt.Client, "loop_read", lambda self, max_packets=1: MQTTErrorCode.MQTT_ERR_SUCCESS)
    monkeypatch.setattr(mqtt.Client, "socket", lambda self: found)
    client = PromptClient(CallbackAPIVersion.VERSION2)
    for _ in range(3):
        assert client.loop_read() is MQTTErrorCode.MQTT_ERR_SUCCESS
    assert found.options == [(socket.IPPROTO_TCP, QUICK_ACK, 1)] * 3


def test_what_is_sent_leaves_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[Any] = []
        thread = threading.Thread(target=lambda: taken.append(server.accept()))
        thread.start()
        client = PromptClient(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", server.getsockname()[1])
        thread.join()
        opened: Any = client.socket()
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        client.disconnect()
        taken[0][0].close()
