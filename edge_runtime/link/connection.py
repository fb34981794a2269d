"""Connection: one MQTT connection to the broker, made again and again. What it carries is its subclass's matter.

- One thread: `poll` over the broker's socket and the local one on which `control` tells that there is something new.
- MQTT 5 first; a broker that speaks 3.1.1 only is found out at the first connection and remembered.
- Failures wait with back-off, also those of a broker that accepts and then kicks: only a connection that stood for
  `STABLE_S` makes earlier failures forgotten.
- `reconnect_spread_s`: a fleet that lost its broker together comes back one after the other (`spread`).
- A subclass gives `_prepare` (will and callbacks, before each CONNECT), `_came_up`, `_went_down`, `_due` (send what is to be
  sent), and, where it needs them, `_after_exchange`, `_wait_s` and `_keepalive`.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_runtime import log
from edge_runtime.backoff import Backoff
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.link.spread import spread_ns
from edge_runtime.mqtt_access import Access
from edge_runtime.mqtt_client import PromptClient

CONNECT_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 1.0  # the first try with MQTT 5: some 3.1.1 brokers never answer it
STABLE_S = 300.0
IDLE_S = 0.5
AWAIT_STEP_S = 0.05
PROTOCOLS = (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311)


class Connection:
    """`turn` does what is to be done and waits at most `IDLE_S` for the broker or for `wake`, a local socket."""

    def __init__(
        self,
        device: str,
        host: str,
        port: int,
        wake: socket.socket | None = None,
        keepalive_s: int = 30,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
        access: Access | None = None,
        reconnect_spread_s: float = 0.0,
    ) -> None:
        self._device, self._host, self._port = device, host, port
        self._wake, self._keepalive_s = wake, keepalive_s
        self._clock, self._backoff = clock or SystemClock(), backoff or uplink_backoff()
        self._access = access
        self._protocol = 0
        self._protocol_proven = False
        self._client: mqtt.Client | None = None
        self._retry_ns = self._connecting_ns = self._up_ns = self._lost_ns = 0
        self.reconnect_spread_s = reconnect_spread_s
        self._said = self._told = ""
        #: since the start: connections, failures; the subclass adds batches, records, bytes, acknowledged, refusals
        self.counts: Counter[str] = Counter()
        self.connected = False

    # ── what the subclass gives ─────────────────────────────────────────────────────────────────────────────────────

    def _prepare(self, client: mqtt.Client) -> None:
        raise NotImplementedError

    def _came_up(self, client: mqtt.Client) -> None:
        raise NotImplementedError

    def _went_down(self) -> None:
        raise NotImplementedError

    def _due(self, now_ns: int) -> None:
        raise NotImplementedError

    def _after_exchange(self) -> None:
        """What came is in the subclass's hands; now it may act."""

    def _wait_s(self, most_s: float) -> float:
        """How long nothing will be due that only the clock brings."""
        return most_s

    def _keepalive(self) -> int:
        return self._keepalive_s

    # ── one turn ────────────────────────────────────────────────────────────────────────────────────────────────────

    def turn(self) -> None:
        if self.advance() is None:
            self._sleep()
        else:
            self._exchange(self._wait_s(IDLE_S))

    def advance(self) -> int | None:
        """Dial, or send what is due; never waits for an answer. The file descriptor to be watched, None while there is no
        connection: then nothing is due before `retry_ns`. For a loop over many: `advance`, wait, `exchange`."""
        if self._client is None and not self._connect():
            return None
        now_ns = self._clock.monotonic_ns()
        limit_s = CONNECT_TIMEOUT_S if self._protocol_proven or self._backoff.tries else PROBE_TIMEOUT_S
        if not self.connected and now_ns - self._connecting_ns > limit_s * 1e9:
            self._exchange(0.0)  # a CONNACK that came while this process stood still
            if not self.connected and self._client is not None:
                self._lost("no CONNACK")
        if self.connected:
            self._due(now_ns)
        if self._client is None:
            return None
        sock = self._client.socket()
        if sock is None:
            self._lost("the broker closed the connection")
            return None
        return int(sock.fileno())

    @property
    def retry_ns(self) -> int:
        return self._retry_ns

    @property
    def retry_s(self) -> float:
        """How long until the next try to connect; 0 while connected or trying."""
        waits_ns = self._retry_ns - self._clock.monotonic_ns()
        return max(0.0, waits_ns / 1e9) if self._client is None else 0.0

    @property
    def wants_write(self) -> bool:
        return self._client is not None and self._client.want_write()

    # ── connecting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _connect(self) -> bool:
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._retry_ns:
            return False
        client = self._make_client(PROTOCOLS[self._protocol])
        try:
            client.connect(self._host, self._port, self._keepalive())
        except (OSError, ValueError) as error:
            self._client = None
            self._later(f"{error}")
            return False
        self._client = client
        self._connecting_ns = now_ns
        return True

    def _make_client(self, protocol: MQTTProtocolVersion) -> mqtt.Client:
        client = PromptClient(
            CallbackAPIVersion.VERSION2,
            client_id=f"gudgeon-{self._device}",
            clean_session=None if protocol is MQTTProtocolVersion.MQTTv5 else True,
            protocol=protocol,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        if self._access is not None:
            self._access.apply(client)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        self._prepare(client)
        return client

    def _on_connect(self, client: mqtt.Client, _: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._told = f"the broker refuses the connection: {reason}"
            return  # the broker closes the connection; the next turn sees it
        self._protocol_proven = self.connected = True
        self.counts["connections"] += 1
        self._up_ns = self._clock.monotonic_ns()
        self._came_up(client)
        self._say(logging.INFO, "connected", protocol="5" if self._protocol == 0 else "3.1.1")

    def _on_disconnect(self, client: mqtt.Client, _: Any, flags: Any, reason: Any, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._told = f"the broker ends the connection: {reason}"

    def _lost(self, reason: str) -> None:
        """Close; the other protocol version is tried at once if this one never worked."""
        reason, self._told = self._told or reason, ""
        was_connected, self.connected, client, self._client = self.connected, False, self._client, None
        if client is not None:
            sock = client.socket()
            if sock is not None:
                sock.close()
        now_ns = self._clock.monotonic_ns()
        if was_connected and now_ns - self._up_ns >= STABLE_S * 1e9:
            self._lost_ns = now_ns  # until then the windows go on as they were: one dial in each, also when kicked
            self._backoff.reset()
        self._went_down()
        if not was_connected and not self._protocol_proven:
            self._protocol = 1 - self._protocol
            if self._protocol == 1:
                return
        self._later(reason)

    def _later(self, reason: str) -> None:
        self.counts["failures"] += 1
        earliest_ns = self._clock.monotonic_ns() + round(self._backoff.next_s() * 1e9)
        self._lost_ns = self._lost_ns or self._clock.monotonic_ns()
        self._retry_ns = spread_ns(self._device, self.reconnect_spread_s, self._lost_ns, earliest_ns)
        self._say(logging.WARNING, "no connection to the broker; trying again", reason=reason)

    def _say(self, level: int, message: str, **fields: Any) -> None:
        """Once for each change, so that a night without a broker does not fill the log."""
        said = f"{message} {fields.get('reason', '')}"
        if said != self._said:
            self._said = said
            log.say(level, message, broker=f"{self._host}:{self._port}", **fields)

    # ── waiting ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _exchange(self, timeout_s: float) -> None:
        """Wait for the broker or for a poke; read and write what is due."""
        sock = self._client.socket() if self._client is not None else None
        if sock is None:
            self._lost("the broker closed the connection")
            return
        buffered = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0  # read from the socket, not yet from TLS
        watch = select.poll()  # not select(): this process may have more than 1024 files open
        watch.register(sock, select.POLLIN | (select.POLLOUT if self.wants_write else 0))
        if self._wake:
            watch.register(self._wake, select.POLLIN)
        ready = dict(watch.poll(0 if buffered else round(1000 * timeout_s + 0.49)))
        if self._wake and self._wake.fileno() in ready:
            drain_wake(self._wake)
        state = ready.get(sock.fileno(), 0)
        self.exchange(buffered or bool(state & ~select.POLLOUT), bool(state & select.POLLOUT))

    def exchange(self, readable: bool, writable: bool) -> None:
        """Read and write where the socket is ready for it; keep the connection alive; take what came."""
        client = self._client
        if client is None:
            return
        codes = [client.loop_misc()]
        if readable:
            codes.append(client.loop_read())
        if writable:
            codes.append(client.loop_write())
        failed = next((c for c in codes if c != mqtt.MQTT_ERR_SUCCESS), None)
        if failed is not None or client.socket() is None:
            self._lost(mqtt.error_string(failed) if failed is not None else "the broker closed the connection")
        else:
            self._after_exchange()

    def _await(self, done: Callable[[], bool], timeout_s: float) -> None:
        """Read and write until `done`, the time is up or the connection is gone. For goodbyes."""
        client = self._client
        for _ in range(max(1, round(timeout_s / AWAIT_STEP_S))):
            sock = client.socket() if client is not None else None
            if client is None or sock is None or done():
                return
            watch = select.poll()
            watch.register(sock, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
            state = dict(watch.poll(1000 * AWAIT_STEP_S)).get(sock.fileno(), 0)
            if state & ~select.POLLOUT:
                client.loop_read()
            if state & select.POLLOUT:
                client.loop_write()

    def _sleep(self) -> None:
        wait_s = max(0.0, min(IDLE_S, (self._retry_ns - self._clock.monotonic_ns()) / 1e9))
        if self._wake is None:
            self._clock.sleep(wait_s)
        elif select.select([self._wake], [], [], wait_s)[0]:
            drain_wake(self._wake)
            self._clock.sleep(wait_s / 2)


def uplink_backoff() -> Backoff:
    """Quick at first, for a broker that restarts; then at least half a minute, so that a fleet does not storm one that is
    down; never more than ten minutes."""
    return Backoff(0.2, 600.0, floor_s=30.0, floor_after=8)


def drain_wake(wake: socket.socket) -> None:
    """Throw away all pokes that wait."""
    try:
        while wake.recv(16):
            pass
    except OSError:
        pass
