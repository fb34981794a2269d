"""Sensors that publish over MQTT, as a Source: a topic and, in a JSON payload, a path lead to a tag.

- A payload is a plain number, `true`/`false`, or JSON in which `path` (keys and indices, joined by dots) leads to one.
- A retained message may be old: its value is UNCERTAIN. A payload that is no value, or too long, is BAD for its tags.
- Silence for `stale_s` makes a tag BAD (stale); the first value after it, or after a lost connection, follows a Gap. At most one
  session's messages are trusted to be complete: the broker keeps nothing for us while we are away.
- paho connects again by itself, with back-off.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edge_runtime.clock import Clock, SystemClock
from edge_runtime.field import judge
from edge_runtime.field.sections import EndpointSection
from edge_runtime.field.source import Health, Outage, Sink
from edge_runtime.field.tag import Quality, Reason, Sample, Tag
from edge_runtime.mqtt_access import Access

PAYLOAD_LIMIT_BYTES = 256 * 1024
KEEPALIVE_S = 15
RETRY_FIRST_S, RETRY_LIMIT_S = 1, 30
LOOK_S = 0.2
log = logging.getLogger("gudgeon")


def find(payload: bytes, path: str) -> object:
    """The value that the path leads to; None where there is none, or it is no value."""
    if len(payload) > PAYLOAD_LIMIT_BYTES:
        return None
    try:
        at: object = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    for key in path.split(".") if path else ():
        if isinstance(at, dict):
            at = at.get(key)
        elif isinstance(at, list) and key.isdecimal() and int(key) < len(at):
            at = at[int(key)]
        else:
            return None
    return at


class MqttSource:
    def __init__(
        self,
        endpoint: EndpointSection,
        tags: Sequence[Tag],
        sink: Sink,
        client_id: str = "",
        clock: Clock | None = None,
    ) -> None:
        self._endpoint, self._tags, self._sink = endpoint, tuple(tags), sink
        self._clock = clock or SystemClock()
        self._topics: dict[str, list[Tag]] = {}
        for tag in tags:
            self._topics.setdefault(tag.topic, []).append(tag)
        self._access = Access(endpoint)
        self._client_id = client_id
        self._health = Health(f"MQTT {endpoint.name}", False, "not tried yet")
        self._lock = threading.Lock()  # paho's thread and the one that looks for silence
        self._outage = Outage()
        self._heard_ns: dict[str, int] = {}
        self._steps = {t.name: judge.Steps(t) for t in tags}
        self._news = {t.name: judge.Exceptions(t) for t in tags}
        self._stop = threading.Event()
        self._client: Any = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stop.clear()
        client = self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=self._client_id)
        self._access.apply(client)
        client.reconnect_delay_set(RETRY_FIRST_S, RETRY_LIMIT_S)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_message, client.on_connect_fail = self._on_message, self._on_connect_fail
        with self._lock:
            for tag in self._tags:
                self._heard_ns[tag.name] = self._clock.monotonic_ns()
        client.connect_async(self._endpoint.host, self._endpoint.port_or_default, KEEPALIVE_S)
        client.loop_start()
        self._thread = threading.Thread(target=self._watch, name=f"mqtt-{self._endpoint.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
        if self._thread is not None:
            self._thread.join(2.0)

    def health(self) -> tuple[Health, ...]:
        return (self._health,)

    def look(self) -> None:
        """Make what has been silent for too long BAD."""
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            for tag in self._tags:
                if tag.stale_s and now_ns - self._heard_ns[tag.name] > tag.stale_s * 1e9:
                    reason = Reason.STALE if self._health.answers else Reason.NO_ANSWER
                    self._tell(tag, judge.bad(tag, reason, now_ns, self._clock.wall_ns()))

    def message(self, topic: str, payload: bytes, retained: bool) -> None:
        """What came on a topic, to its tags."""
        with self._lock:
            now_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
            for tag in self._topics.get(topic, ()):
                doubt = (Quality.UNCERTAIN, Reason.SOURCE_UNCERTAIN) if retained else (Quality.GOOD, Reason.NONE)
                self._heard_ns[tag.name] = now_ns
                sample = judge.good(tag, find(payload, tag.path), now_ns, wall_ns, *doubt)
                self._tell(tag, self._steps[tag.name].settle(sample))

    def lost(self, problem: str) -> None:
        with self._lock:
            if self._health.answers or self._health.failures == 0:
                log.warning("%s: %s; trying again", self._endpoint.name, problem)
            failures = self._health.failures + 1
            self._health = replace(self._health, answers=False, problem=problem, failures=failures)
            now_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
            for tag in self._tags:
                self._tell(tag, judge.bad(tag, Reason.NO_ANSWER, now_ns, wall_ns))

    def _tell(self, tag: Tag, sample: Sample) -> None:
        if sample.quality is Quality.GOOD:
            gap = self._outage.end(tag.name, sample.mono_ns, sample.wall_ns)
            if gap is not None:
                self._health = replace(self._health, gaps=self._health.gaps + 1)
                self._sink(gap)
        elif sample.quality is Quality.BAD:
            self._outage.begin((tag.name,), sample.reason.value)
        if self._news[tag.name].worth(sample):
            self._sink(sample)

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            self.look()

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.lost(f"MQTT {self._endpoint.host}: the broker refuses the login: {reason}")
            return
        with self._lock:
            self._health = replace(self._health, answers=True, problem="", connects=self._health.connects + 1)
        client.subscribe([(topic, 1) for topic in self._topics])
        log.info("%s: connected", self._endpoint.name)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not self._stop.is_set():
            self.lost(f"MQTT {self._endpoint.host}: the connection is lost: {reason}")

    def _on_connect_fail(self, client: Any, userdata: Any) -> None:
        self.lost(
            f"MQTT {self._endpoint.host}:{self._endpoint.port_or_default}: cannot connect; check address and port"
        )

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        self.message(message.topic, bytes(message.payload), bool(message.retain))
