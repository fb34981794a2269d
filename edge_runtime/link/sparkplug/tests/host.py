"""A Sparkplug host application for tests: raw paho and `wire_reader`, no code of the node.

It keeps every message, follows the session as a SCADA host does, and notes each breach of the specification in `breaches`."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_runtime.link.sparkplug.tests.wire_reader import read_payload, value_of
from edge_runtime.tests.waiting import PATIENCE_S

Seen = tuple[str, str, dict[str, Any]]  # message, device or "", payload


@dataclass(frozen=True)
class Point:
    """One value that came."""

    owner: str
    name: str
    timestamp: int
    value: Any
    historical: bool
    message: str
    at_s: float = field(compare=False)


class Host:
    def __init__(
        self,
        port: int,
        host_id: str = "scada",
        group: str = "site1",
        node: str = "dev1",
        will_timestamp: int = 1000,
        username: str = "",
    ) -> None:
        self._group, self._node = group, node
        self.state_topic = f"spBv1.0/STATE/{host_id}"
        self.seen: list[Seen] = []
        self.points: list[Point] = []
        self.breaches: list[str] = []
        self.bd_seqs: list[int] = []
        self.deaths: list[int] = []
        self.node_online = False
        self.lines_online: set[str] = set()
        self._marks = self._marked = 0
        self._aliases: dict[int, tuple[str, str, int]] = {}
        self._expected: int | None = None
        self._changed = threading.Condition()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, f"host-{host_id}-{username}", protocol=mqtt.MQTTv311)
        if username:
            self._client.username_pw_set(username)
        self._client.will_set(self.state_topic, self._state(False, will_timestamp), qos=1, retain=True)
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe("spBv1.0/#", 1)
        assert subscribed.wait(PATIENCE_S)

    # ── what a host does ────────────────────────────────────────────────────────────────────────────────────────────

    def say(self, online: bool, timestamp: int) -> None:
        info = self._client.publish(self.state_topic, self._state(online, timestamp), qos=1, retain=True)
        info.wait_for_publish(PATIENCE_S)

    def command(self, payload: bytes, message: str = "NCMD", device: str = "", retain: bool = False) -> None:
        topic = f"spBv1.0/{self._group}/{message}/{self._node}" + (f"/{device}" if device else "")
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(PATIENCE_S)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def catch_up(self) -> None:
        """Until everything is here that the broker had for us so far."""
        self._marks += 1
        mark = self._marks
        self._client.publish("spBv1.0/mark", str(mark), qos=0)
        self.wait(lambda: self._marked >= mark)

    def die(self) -> None:
        """Without a word: the broker tells its will. (An MQTT client's socket, closed under it.)"""
        sock = self._client.socket()
        assert isinstance(sock, socket.socket)
        self._client.reconnect_delay_set(1000, 1000)
        sock.shutdown(socket.SHUT_RDWR)

    def wait(self, done: Any) -> None:
        with self._changed:
            assert self._changed.wait_for(done, PATIENCE_S), (self.kinds()[-20:], self.breaches[:5])

    # ── what it saw ─────────────────────────────────────────────────────────────────────────────────────────────────

    def kinds(self) -> list[str]:
        return [message for message, _, _ in self.seen]

    def values(self, name: str, historical: bool | None = None, births: bool = False) -> list[Any]:
        return [p.value for p in self.select(name, historical, births)]

    def select(self, name: str, historical: bool | None = None, births: bool = False) -> list[Point]:
        return [
            p
            for p in self.points
            if p.name == name
            and (births or not p.message.endswith("BIRTH"))
            and (historical is None or p.historical is historical)
        ]

    def birth(self, message: str = "NBIRTH") -> dict[str, Any]:
        """The newest birth: name → metric."""
        metrics = next(p for m, _, p in reversed(self.seen) if m == message)["metrics"]
        return {m["name"]: m for m in metrics}

    # ── following the session ───────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def _state(online: bool, timestamp: int) -> bytes:
        return json.dumps({"online": online, "timestamp": timestamp}).encode()

    def _on_message(self, _: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        parts = message.topic.split("/")
        if parts[1] == "mark":
            with self._changed:
                self._marked = int(message.payload)
                self._changed.notify_all()
            return
        if parts[1] == "STATE" or parts[2] in ("NCMD", "DCMD"):
            return
        with self._changed:
            try:
                self._take(parts, message)
            except (AssertionError, KeyError, IndexError) as error:
                self.breaches.append(f"{message.topic}: {error!r}")
            self._changed.notify_all()

    def _take(self, parts: list[str], message: mqtt.MQTTMessage) -> None:
        kind, device = parts[2], parts[4] if len(parts) > 4 else ""
        payload = read_payload(bytes(message.payload))
        self.seen.append((kind, device, payload))
        assert (parts[0], parts[1], parts[3]) == ("spBv1.0", self._group, self._node)
        assert bool(device) == kind.startswith("D"), "device level"
        assert not message.retain, "retained"
        assert message.qos == (1 if kind == "NDEATH" else 0), f"qos {message.qos}"
        if kind == "NDEATH":
            self._death(payload)
            return
        assert "timestamp" in payload, "no timestamp"
        if kind == "NBIRTH":
            self._aliases.clear()
            self.lines_online.clear()
            self.node_online, self._expected = True, 0
        assert self.node_online, f"{kind} while the node is not born"
        assert payload["seq"] == self._expected, f"{kind} seq {payload['seq']}, expected {self._expected}"
        self._expected = (payload["seq"] + 1) % 256
        if kind == "DDATA":
            assert device in self.lines_online, "DDATA of a line that is not born"
        elif kind == "DBIRTH":
            self.lines_online.add(device)
        elif kind == "DDEATH":
            self.lines_online.remove(device)
            assert not payload["metrics"]
        self._metrics(kind, device, payload["metrics"])

    def _metrics(self, kind: str, device: str, metrics: list[dict[str, Any]]) -> None:
        taken: set[tuple[str, int]] = set()
        newest = 0
        for metric in metrics:
            if kind.endswith("BIRTH"):
                is_now = (device, metric["name"], metric["datatype"])
                was = self._aliases.setdefault(metric["alias"], is_now)
                assert was == is_now, f"alias {metric['alias']} of {was} and {is_now}"
            else:
                assert "name" not in metric, "a name beside an alias"
            owner, name, datatype = self._aliases[metric["alias"]]
            assert owner == device, f"{name} of {owner!r} in a message of {device!r}"
            timestamp, historical = metric["timestamp"], metric.get("is_historical", False)
            assert (name, timestamp) not in taken, f"{name} twice at {timestamp}"
            taken.add((name, timestamp))
            assert historical or timestamp >= newest, "not in the order of time"
            newest = newest if historical else timestamp
            value = value_of(metric, datatype)
            self.points.append(Point(device, name, timestamp, value, historical, kind, time.monotonic()))
        if kind == "NBIRTH":
            names = {m["name"]: m for m in metrics}
            assert names["Node Control/Rebirth"]["value"] is False
            assert names["bdSeq"]["datatype"] == 4
            self.bd_seqs.append(names["bdSeq"]["value"])

    def _death(self, payload: dict[str, Any]) -> None:
        assert "seq" not in payload, "a death has no seq"
        (metric,) = payload["metrics"]
        assert metric["name"] == "bdSeq"
        self.deaths.append(metric["value"])
        if self.bd_seqs and metric["value"] == self.bd_seqs[-1]:
            self.node_online = False
            self.lines_online.clear()
