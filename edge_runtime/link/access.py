"""How the uplink proves who it is and whom it speaks to: TLS and password, from the `[broker]` section."""

from __future__ import annotations

import ssl

import paho.mqtt.client as mqtt

from edge_runtime.config import BrokerSection
from edge_runtime.link.time_floor import TimeFloor, judge_at
from edge_runtime.mqtt_access import BrokerAccess, secret_file
from edge_runtime.mqtt_access import tls_context as context_of


def tls_context(broker: BrokerSection) -> ssl.SSLContext | None:
    """TLS 1.2 or newer; the broker's certificate and its name are always checked. None where no TLS is asked for."""
    return context_of(BrokerAccess(broker.tls, broker.ca_file, broker.cert_file, broker.key_file))


def password(broker: BrokerSection) -> str | None:
    return secret_file(broker.password_file) if broker.password_file else None


class Access:
    """Read once at the start, so that a wrong file is told then; applied to every connection. With a `floor`, certificates
    are judged at it while the system's clock is behind."""

    def __init__(self, broker: BrokerSection, floor: TimeFloor | None = None) -> None:
        self._context, self._username, self._password = tls_context(broker), broker.username, password(broker)
        self._floor = floor
        self._floor_context = tls_context(broker) if floor else None
        if floor and self._floor_context:
            judge_at(self._floor_context, floor.now_ns)

    @property
    def tls(self) -> bool:
        return self._context is not None

    def apply(self, client: mqtt.Client) -> None:
        behind = self._floor is not None and self._floor.clock_is_behind
        context = self._floor_context if behind else self._context
        if context is not None:
            client.tls_set_context(context)
        if self._username:
            client.username_pw_set(self._username, self._password)
