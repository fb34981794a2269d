"""Cutting: a device that was revoked loses its session with the broker, also the one that stands, within seconds.

The store is asked every few seconds, so that it does not matter who revoked, and so is the authority: the broker's files follow
another issuer or root. First the broker gets the new CRL, then the session
is taken: the cloud connects with the device's client id, for which MQTT makes the broker end the one that was there. If
somebody takes it back (the broker had not read the CRL yet), it is taken again, unless it is the device that has the name now.
What cannot be done now is done at the next look.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from sqlalchemy import Engine, select

from cloud.devices.broker_files import BrokerFiles
from cloud.settings import BrokerSection
from cloud.store import tables as t
from edge_runtime import log
from edge_runtime.errors import EndpointError, GudgeonError
from edge_runtime.mqtt_access import Access
from edge_runtime.mqtt_client import PromptClient

LOOK_S, REFRESH_S = 2.0, 12 * 3600.0
BACK_NS = 3600 * 10**9  # whoever was revoked within this time is looked at; at the first look, everybody
CONNECT_S, READ_S, HOLD_S, TRIES = 5.0, 0.5, 1.5, 10
#: takes the session of a device, True: until it stays taken; EndpointError where it does not
Cut = Callable[[str, bool], None]


class Sessions:
    """Takes sessions at the cloud's own listener of the broker."""

    def __init__(self, broker: BrokerSection) -> None:
        self._broker, self._access = broker, Access(broker)

    def cut(self, device: str, for_good: bool) -> None:
        """EndpointError where it did not stay cut."""
        for _ in range(TRIES):
            if self._hold(device) or not for_good:
                return
        raise EndpointError(f"{device} takes its session back again and again; does the broker read its CRL?")

    def _hold(self, device: str) -> bool:
        """Take the session; True where nobody took it back for a while."""
        up, lost = threading.Event(), threading.Event()
        client = PromptClient(
            CallbackAPIVersion.VERSION2,
            client_id=device,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_S
        self._access.apply(client)

        def connected(client: mqtt.Client, _: object, flags: object, reason: Any, properties: object) -> None:
            (lost if reason.is_failure else up).set()

        client.on_connect = connected
        client.on_disconnect = lambda *_: lost.set()
        where = f"{self._broker.host}:{self._broker.port}"
        try:
            client.connect(self._broker.host, self._broker.port)
            client.loop_start()
            if not up.wait(CONNECT_S):
                raise EndpointError(f"{where}: the broker does not let the cloud take the session of {device}")
            return not lost.wait(HOLD_S)
        except (OSError, ValueError) as error:
            raise EndpointError(f"{where}: {error}") from error
        finally:
            client.disconnect()
            client.loop_stop()


class Cutting:
    """In a thread of its own. `files` None: the broker's files are somebody else's matter."""

    def __init__(self, engine: Engine, files: BrokerFiles | None, cut: Cut, now_ns: Callable[[], int]) -> None:
        self._engine, self._files, self._cut = engine, files, cut
        self._now_ns = now_ns
        self._seen: set[str] | None = None
        self._owed: dict[str, bool] = {}
        self._refreshed_s = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cutting", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(2 * CONNECT_S)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                self.look()
            except Exception as error:  # the store may be away; what is owed stays owed
                log.say(logging.ERROR, "revoked devices could not be cut off", reason=str(error))

    def look(self) -> list[str]:
        """Cut off whoever was revoked since the last look; who was."""
        revoked = self._newly_revoked()
        if self._files and (revoked or self._files.due or time.monotonic() - self._refreshed_s > REFRESH_S):
            self._files.refresh()
            self._refreshed_s = time.monotonic()
            self._stopping.wait(READ_S)
        self._owed |= revoked
        done = []
        for device, for_good in sorted(self._owed.items()):
            try:
                self._cut(device, for_good)
            except GudgeonError as error:
                log.say(logging.ERROR, "a revoked device may still be connected", device=device, reason=str(error))
                continue
            del self._owed[device]
            done.append(device)
            log.say(logging.INFO, "a revoked device was cut off", device=device)
        return done

    def _newly_revoked(self) -> dict[str, bool]:
        """Devices of certificates that were revoked; True where the device itself was, so that nobody has its name now."""
        c, identity = t.certificate.c, t.identity.c
        query = select(c.serial, c.device, identity.revoked_ns).join(t.identity, identity.device == c.device)
        now_ns, seen = self._now_ns(), self._seen or set()
        recent = c.revoked_ns >= (0 if self._seen is None else now_ns - BACK_NS)
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(recent, c.not_after_ns > now_ns)).all()
        fresh = {str(row.device): row.revoked_ns is not None for row in rows if row.serial not in seen}
        self._seen = {str(row.serial) for row in rows}
        return fresh
