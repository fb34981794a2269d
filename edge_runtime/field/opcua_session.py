"""One OPC UA connection: security, login, subscription, history. The only file that knows asyncua's names beside
edge_runtime/field/opcua.py; asyncua is loaded at first use. Everything runs in the caller's event loop.

Loss of the connection, a server that goes silent, and a subscription whose keep-alives stop all end in `lost`. asyncua's own
reconnection and its silent renewal of subscriptions are off: what is lost must be told.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_runtime.errors import EndpointError, GudgeonError, MissingExtraError
from edge_runtime.field.opcua_trust import TrustList
from edge_runtime.field.sections import EndpointSection
from edge_runtime.field.tag import Quality, Tag
from edge_runtime.mqtt_access import secret_file

POLICIES = {
    "Basic256Sha256": "SecurityPolicyBasic256Sha256",
    "Aes128Sha256RsaOaep": "SecurityPolicyAes128Sha256RsaOaep",
    "Aes256Sha256RsaPss": "SecurityPolicyAes256Sha256RsaPss",
}
OVERFLOW = 0x480  # the InfoBits of a value before which the server's queue has dropped some
KEEP_ALIVES, LIFE = 4, 40  # publishing intervals: between keep-alives; until the server forgets the subscription
CLOSE_S = 1.5
HISTORY_LIMIT = 20_000  # values of one tag of one outage


@dataclass(frozen=True)
class Value:
    """One value of a node. `source_ns`: the server's clock, 0 where it gives none. `overflow`: some before it are lost."""

    raw: Any
    quality: Quality
    source_ns: int
    overflow: bool = False


class Session:
    """`values` holds what has come, as (tag, Value), until it is taken; `arrived` is set with each."""

    def __init__(self, endpoint: EndpointSection, trust: TrustList | None) -> None:
        try:
            import asyncua
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"endpoint {endpoint.name}: opcua needs asyncua; install it with: pip install 'gudgeon[opcua]'"
            ) from error
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
        self.name = f"OPC UA {endpoint.name} opc.tcp://{endpoint.host}:{endpoint.port_or_default}"
        self._url = f"opc.tcp://{endpoint.host}:{endpoint.port_or_default}/{endpoint.url_path.lstrip('/')}"
        self._endpoint, self._trust = endpoint, trust
        self._asyncua, self._ua = asyncua, asyncua.ua
        self._timeout_s = max(endpoint.timeout_ms / 1000, 2.0)
        self._client: Any = None
        self._subscription: Any = None
        self._tags: dict[int, str] = {}
        self._since_s = time.monotonic()
        self.lost = asyncio.Event()
        self.arrived = asyncio.Event()
        self.values: list[tuple[str, Value]] = []

    async def open(self) -> None:
        """Connect and log in; EndpointError says what was refused."""
        client = self._client = self._asyncua.Client(self._url, timeout=self._timeout_s)
        client.name = "Gudgeon"
        client.session_timeout = 60_000
        client._stale_check_interval = 1e9  # it would renew a subscription and tell nobody
        client.connection_lost_callback = self._on_lost
        try:
            if self._endpoint.security != "none":
                await self._secure(client)
            if self._endpoint.username:
                client.set_user(self._endpoint.username)
                if self._endpoint.password_file:
                    client.set_password(secret_file(self._endpoint.password_file))
            if self._endpoint.cert_file and self._endpoint.key_file:
                await client.load_client_certificate(str(self._endpoint.cert_file))
                await client.load_private_key(self._endpoint.key_file)
            async with asyncio.timeout(self._timeout_s * 4):
                await client.connect()
        except GudgeonError:
            raise
        except Exception as error:  # of many types in this library
            raise EndpointError(f"{self.name}: cannot connect: {_text(error)}") from error

    async def subscribe(self, tags: Sequence[tuple[Tag, float]]) -> list[str]:
        """One monitored item for each (tag, sampling period in seconds); the names of the tags that the server refuses."""
        ua = self._ua
        params = ua.CreateSubscriptionParameters()
        params.RequestedPublishingInterval = float(self._endpoint.publishing_ms)
        params.RequestedMaxKeepAliveCount, params.RequestedLifetimeCount = KEEP_ALIVES, LIFE
        params.PublishingEnabled, params.Priority, params.MaxNotificationsPerPublish = True, 0, 0
        self._since_s = time.monotonic()
        self._subscription = await self._call(self._client.create_subscription(params, self))
        return await self.add(tags)

    async def add(self, tags: Sequence[tuple[Tag, float]]) -> list[str]:
        """Further items of the same subscription; the names of those refused. One with a bad filter or node leaves the others."""
        requests, refused = [], []
        for tag, period_s in tags:
            try:
                requests.append((tag, self._request(tag, period_s, bool(tag.deadband) and tag.count == 1)))
            except Exception:  # a node id that cannot be read
                refused.append(tag.name)
        results = await self._call(self._subscription.create_monitored_items([r for _, r in requests]))
        for (tag, request), result in zip(requests, results, strict=True):
            final = result
            if isinstance(result, self._ua.StatusCode) and request.RequestedParameters.Filter is not None:
                plain = self._request(tag, request.RequestedParameters.SamplingInterval / 1000, False)
                final = (await self._call(self._subscription.create_monitored_items([plain])))[
                    0
                ]  # it knows no deadband
            if isinstance(final, self._ua.StatusCode):
                refused.append(tag.name)
        return refused

    async def history(self, tag: Tag, from_ns: int, to_ns: int) -> list[Value] | None:
        """The values from one server time to another, both ends included; None where the server offers none."""
        node = self._client.get_node(tag.node)
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await node.read_raw_history(_date(from_ns), _date(to_ns), HISTORY_LIMIT, False)
        except Exception as error:
            logging.getLogger("gudgeon").debug("%s: no history of %s: %s", self.name, tag.name, _text(error))
            return None
        return [value for value in map(self._value, found) if from_ns <= value.source_ns <= to_ns]

    def take(self) -> list[tuple[str, Value]]:
        taken, self.values = self.values, []
        self.arrived.clear()
        return taken

    @property
    def quiet_s(self) -> float:
        """Since the server last published, if only a keep-alive."""
        at: float | None = self._subscription.last_publish_at if self._subscription is not None else None
        return time.monotonic() - (self._since_s if at is None else at)

    @property
    def quiet_limit_s(self) -> float:
        return 2.5 * KEEP_ALIVES * self._endpoint.publishing_ms / 1000 + 1.0

    async def close(self) -> None:
        client, self._client, self._subscription = self._client, None, None
        if client is None:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                await client.disconnect()
        except Exception as error:
            logging.getLogger("gudgeon").debug("%s: while closing: %s", self.name, _text(error))
            client.disconnect_socket()

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        """asyncua calls this for every value."""
        name = self._tags.get(data.subscription_data.client_handle)
        if name is not None:
            self.values.append((name, self._value(data.monitored_item.Value)))
            self.arrived.set()

    def status_change_notification(self, status: Any) -> None:
        """asyncua calls this when the server ends the subscription."""
        self.lost.set()

    async def _on_lost(self, error: Exception) -> None:
        self.lost.set()

    async def _secure(self, client: Any) -> None:
        from asyncua.crypto import security_policies
        from asyncua.crypto.uacrypto import CertProperties

        assert self._trust is not None
        policy = getattr(security_policies, POLICIES[self._endpoint.security])
        mode = self._ua.MessageSecurityMode.SignAndEncrypt
        client.application_uri = self._trust.uri
        async with asyncio.timeout(self._timeout_s):
            offered = await client.connect_and_get_server_endpoints()
        match = [e for e in offered if e.SecurityMode == mode and e.SecurityPolicyUri == policy.URI]
        if not match or not match[0].ServerCertificate:
            there = sorted({f"{e.SecurityPolicyUri.rpartition('#')[2]} {e.SecurityMode.name}" for e in offered})
            raise EndpointError(
                f"{self.name}: does not offer {self._endpoint.security} with Sign & Encrypt; it offers: {', '.join(there)}"
            )
        certificate = _first(match[0].ServerCertificate)
        self._trust.check(self.name, certificate, datetime.datetime.now(datetime.UTC))
        await client.set_security(
            policy, CertProperties(self._trust.certificate, "der"), CertProperties(self._trust.key, "pem"),
            server_certificate=CertProperties(certificate, "der"), mode=mode,
        )  # fmt: skip

    def _request(self, tag: Tag, period_s: float, deadband: bool) -> Any:
        ua = self._ua
        item = ua.MonitoredItemCreateRequest()
        item.ItemToMonitor.NodeId = ua.NodeId.from_string(tag.node)
        item.ItemToMonitor.AttributeId = ua.AttributeIds.Value
        item.MonitoringMode = ua.MonitoringMode.Reporting
        params = item.RequestedParameters
        params.ClientHandle = 1 + max(self._tags, default=0)
        params.SamplingInterval, params.QueueSize, params.DiscardOldest = period_s * 1000, self._endpoint.queue, True
        self._tags[params.ClientHandle] = tag.name
        if deadband:
            filter_ = ua.DataChangeFilter()
            filter_.Trigger = ua.DataChangeTrigger.StatusValue
            filter_.DeadbandType, filter_.DeadbandValue = 1, abs(tag.deadband / tag.scale)
            params.Filter = filter_
        return item

    def _value(self, data: Any) -> Value:
        status = data.StatusCode
        code = 0 if status is None else int(status.value)
        quality = {0: Quality.GOOD, 1: Quality.UNCERTAIN}.get(code >> 30, Quality.BAD)
        source = data.SourceTimestamp or data.ServerTimestamp
        raw = data.Value.Value if data.Value is not None else None
        return Value(raw, quality, _ns(source) if source else 0, code & OVERFLOW == OVERFLOW)

    async def _call(self, work: Any) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s * 2):
                return await work
        except Exception as error:
            raise EndpointError(f"{self.name}: no answer: {_text(error)}") from error


def _first(chain: bytes) -> bytes:
    """The server's own certificate of a chain: the first DER value."""
    if len(chain) > 4 and chain[0] == 0x30 and chain[1] == 0x82:
        return chain[: 4 + int.from_bytes(chain[2:4], "big")]
    return chain


def _text(error: Exception) -> str:
    return str(error).replace("\n", " ") or type(error).__name__


def _ns(when: datetime.datetime) -> int:
    aware = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
    return round(aware.timestamp() * 1_000_000) * 1000


def _date(ns: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(ns / 1e9, datetime.UTC)
