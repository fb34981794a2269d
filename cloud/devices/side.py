"""Everything of `gudgeon cloud` that faces devices, put together: authority, desk, application, listener."""

from __future__ import annotations

import logging
import socket
import threading
import time
from datetime import UTC, datetime

from sqlalchemy import Engine

from cloud.ca.authority import Authority
from cloud.ca.local import LocalAuthority
from cloud.ca.step import StepAuthority
from cloud.devices.app import make_devices_app
from cloud.devices.broker_files import BrokerFiles
from cloud.devices.cutting import Cutting, Sessions
from cloud.devices.served import Served
from cloud.devices.server import DeviceServer, server_context
from cloud.enrol.challenges import Challenges
from cloud.enrol.desk import Clock, Desk
from cloud.rollout.registry import Registry
from cloud.settings import CloudSettings
from edge_runtime import log
from edge_runtime.errors import GudgeonError
from edge_runtime.identity import load_or_make

LOOK_S, REFRESH_S = 5.0, 3600.0


def make_authority(settings: CloudSettings) -> Authority:
    """That of the settings; a local one is made where there is none yet."""
    ca = settings.ca
    if ca.kind == "step":
        assert ca.root_file
        assert ca.key_file
        return StepAuthority(ca.url, ca.root_file, ca.provisioner, ca.key_file)
    local = LocalAuthority(settings.ca_folder)
    local.create(settings.ca.name, datetime.now(UTC))
    return local


def make_desk(engine: Engine, settings: CloudSettings, authority: Authority, now_ns: Clock = time.time_ns) -> Desk:
    challenges = Challenges.of(load_or_make(settings.store.key_file))
    return Desk(engine, authority, challenges, now_ns, settings.devices.life, settings.devices.grace)


class DeviceSide:
    def __init__(
        self,
        engine: Engine,
        settings: CloudSettings,
        sock: socket.socket,
        now_ns: Clock = time.time_ns,
        registry: Registry | None = None,
    ) -> None:
        self.authority = make_authority(settings)
        self.desk = make_desk(engine, settings, self.authority, now_ns)
        self._served = Served(settings.ca_folder, settings.devices.names, self.authority, time.time_ns)
        self._context = server_context(self.authority.roots())
        self._served.load(self._context)
        self._rotation, self._refreshed_s = self.authority.rotation(), time.monotonic()
        self._cutting = self._make_cutting(engine, settings, now_ns)
        self._server = DeviceServer(make_devices_app(self.desk, settings, registry=registry), sock, self._context)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="devices-certificate", daemon=True)

    def _make_cutting(self, engine: Engine, settings: CloudSettings, now_ns: Clock) -> Cutting | None:
        if settings.devices.broker_folder is None:
            return None
        files = BrokerFiles(settings, self.desk)
        files.write()
        return Cutting(engine, files, Sessions(settings.broker).cut, now_ns)

    def start(self) -> None:
        self._server.start()
        self._thread.start()
        if self._cutting:
            self._cutting.start()

    @property
    def alive(self) -> bool:
        return self._server.alive

    def stop(self) -> None:
        self._stopping.set()
        if self._cutting:
            self._cutting.stop()
        self._server.stop()
        self._thread.join(1.0)

    def _refresh(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                self.refresh()
            except GudgeonError as error:
                log.say(logging.ERROR, "the certificate of the listener for devices was not renewed", reason=str(error))

    def refresh(self) -> None:
        """Show another certificate where that is due, and believe new roots, without a restart. A root that was retired is
        believed in handshakes until then; what it signed opens nothing, because each request asks the store."""
        rotation = self.authority.rotation()
        if rotation == self._rotation and time.monotonic() - self._refreshed_s < REFRESH_S:
            return
        self._served.refresh(self._context)
        self._context.load_verify_locations(cadata=self.authority.roots().decode())
        self._rotation, self._refreshed_s = rotation, time.monotonic()
