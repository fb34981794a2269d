"""A real OPC UA server (asyncua) with sensors, in a thread: encryption, logins, a history where asked for."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from asyncua import Server, ua
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.user_managers import UserManager

from edge_runtime.field.opcua_trust import TrustList

NAMESPACE = "urn:test:sensors"
P = ua.SecurityPolicyType
POLICIES = [P.Basic256Sha256_SignAndEncrypt, P.Aes128Sha256RsaOaep_SignAndEncrypt, P.Aes256Sha256RsaPss_SignAndEncrypt]


class _Users(UserManager):  # type: ignore[misc]
    def __init__(self, certificates: list[bytes]) -> None:
        self._certificates = certificates

    def get_user(self, iserver: Any, username: str = "", password: str = "", certificate: Any = None) -> Any:
        from asyncua.crypto.uacrypto import der_from_x509

        if username:
            return User(role=UserRole.User) if (username, password) == ("gauge", "s3cret") else None
        der = certificate if isinstance(certificate, bytes) or certificate is None else der_from_x509(certificate)
        return User(role=UserRole.User) if der in self._certificates else None


@dataclass
class Sensors:
    """`values` by node name; nodes are `ns=2;s=<name>`. `set` writes one while it runs."""

    values: dict[str, Any]
    folder: Path | None = None  # with one: Sign & Encrypt alone
    users: bool = False
    user_certificates: list[bytes] = field(default_factory=list)
    history: bool = False

    def __post_init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        if self.folder is not None:
            self.identity = TrustList(self.folder, "server")
            self.identity.prepare()

    def start(self) -> None:
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(started),), daemon=True)
        self._thread.start()
        assert started.wait(120)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(20)

    def set(self, name: str, value: Any) -> None:
        """A value, or a DataValue."""
        self.values[name] = value if not isinstance(value, ua.DataValue) else self.values[name]
        asyncio.run_coroutine_threadsafe(self._nodes[name].write_value(value), self._loop).result(5)

    def drop(self) -> None:
        """Cut every connection, as a switch does."""

        def cut() -> None:
            for protocol in list(self._server.bserver.clients):
                protocol.transport.abort()

        self._loop.call_soon_threadsafe(cut)

    async def _serve(self, started: threading.Event) -> None:
        server = self._server = Server(user_manager=_Users(self.user_certificates) if self.users else None)
        await server.init()
        server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}")
        if self.folder is not None:
            await server.set_application_uri(self.identity.uri)
            await server.load_certificate(str(self.identity.certificate))
            await server.load_private_key(str(self.identity.key))
            server.set_security_policy(POLICIES)
        else:
            server.set_security_policy([P.NoSecurity])
        index = await server.register_namespace(NAMESPACE)
        self._nodes = {
            name: await server.nodes.objects.add_variable(ua.NodeId(name, index), name, value)
            for name, value in self.values.items()
        }
        async with server:
            if self.history:
                for node in self._nodes.values():
                    await server.historize_node_data_change(node, period=timedelta(days=1), count=1000)
            started.set()
            await self._stop.wait()
