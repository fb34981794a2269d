"""Dispatch: desired state and commands to the devices, and what they report back, over MQTT.

It belongs to `gudgeon cloud`, once, beside whatever ingest workers there are. The store is what counts: a request is kept
first and sent then; what could not be sent goes out when the broker, or the device, is there again.

- Desired state is retained, so that a device finds it whenever it connects; a broker that forgets gets it again.
- Commands are not retained: those that wait and have not expired are sent when their device says that it is online.
"""

from __future__ import annotations

import json
import logging
import queue
import secrets
import threading
import time
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from cloud.store import twin
from edge_runtime import log
from edge_runtime.mqtt_access import Access, BrokerAccess
from edge_runtime.wire.desired import read_reported
from edge_runtime.wire.topics import Place, parse, subscription

KEEPALIVE_S = 30
RECONNECT_S = (1, 10)
QUEUE_MESSAGES = 2000
CONNECTED = ("", b"")


class Dispatch:
    """`start`, then `stop`. One thread of its own works on what comes and goes, in order; callers never wait for the broker.
    MQTT 3.1.1, which every broker speaks."""

    def __init__(self, engine: Engine, host: str, port: int, access: BrokerAccess | None = None) -> None:
        self._engine, self._host, self._port = engine, host, port
        self._work: queue.Queue[tuple[str, bytes] | str | None] = queue.Queue(QUEUE_MESSAGES)
        self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"gudgeon-dispatch-{secrets.token_hex(4)}",
            clean_session=True,
            protocol=MQTTProtocolVersion.MQTTv311,
        )
        Access(access or BrokerAccess()).apply(self._client)
        self._client.reconnect_delay_set(*RECONNECT_S)
        self._client.on_connect = self._on_connect
        self._client.on_message = lambda c, u, m: self._put((m.topic, bytes(m.payload)))
        self.connected = threading.Event()
        self._client.on_disconnect = lambda *_: self.connected.clear()
        self._newest: dict[str, int] = {}  # device → counter of the last command sent since it appeared
        self.lost = 0

    def start(self) -> None:
        self._thread.start()
        self._client.connect_async(self._host, self._port, KEEPALIVE_S)
        self._client.loop_start()

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._work.put(None)
        self._thread.join()

    def send(self, device: str) -> None:
        """What is asked of this device was changed: desired state and waiting commands go out, as soon as may be."""
        self._put(device)

    def _put(self, work: tuple[str, bytes] | str) -> None:
        """Where there is no room, nothing is lost that the device's next appearance would not bring again."""
        try:
            self._work.put_nowait(work)
        except queue.Full:
            self.lost += 1

    def _on_connect(self, client: mqtt.Client, _: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            log.say(logging.WARNING, "dispatch: the broker refuses the connection", reason=str(reason))
            return
        client.subscribe([(subscription("reported"), 1), (subscription("status"), 1)])
        self.connected.set()
        self._put(CONNECTED)

    # ── the worker ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                self._do(work)
            except SQLAlchemyError as error:  # the store; the next appearance brings it again
                log.say(logging.ERROR, "dispatch: the store refuses", reason=str(error).splitlines()[0])
            finally:
                self._work.task_done()

    def _do(self, work: tuple[str, bytes] | str) -> None:
        if isinstance(work, str):
            where = twin.place_of(self._engine, work)
            if where is not None:
                self._bring_desired(_place(where, work))
                self._bring_commands(_place(where, work))
        elif work is CONNECTED:  # who is online is told next
            for device, where in twin.places(self._engine).items():
                self._bring_desired(_place(where, device))
        else:
            self._take(*work)

    def _take(self, topic: str, payload: bytes) -> None:
        try:
            place, leaf = parse(topic)
            if leaf == "reported":
                twin.keep_reported(self._engine, place.device, read_reported(payload), time.time_ns())
            elif json.loads(payload).get("online") is True:
                self._newest.pop(place.device, None)
                self._bring_desired(place)
                self._bring_commands(place)
        except (ValueError, AttributeError, RecursionError) as error:
            log.say(logging.WARNING, "dispatch: a message cannot be read", topic=topic, reason=str(error)[:300])

    def _bring_desired(self, place: Place) -> None:
        message = twin.desired_message(self._engine, place.device)
        if message is not None:
            self._client.publish(place.topic("desired"), message, qos=1, retain=True)

    def _bring_commands(self, place: Place) -> None:
        """Each once for every appearance of the device; what it has seen before it tells as replayed."""
        above = self._newest.get(place.device, 0)
        for counter, message in twin.waiting_commands(self._engine, place.device, above, time.time_ns()):
            self._client.publish(place.topic("command"), message, qos=1)
            self._newest[place.device] = counter


def _place(where: str, device: str) -> Place:
    enterprise, site, area, line, cell = where.split("/")
    return Place(enterprise, site, area, line, cell, device)
