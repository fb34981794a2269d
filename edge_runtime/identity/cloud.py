"""What a device asks the cloud about its identity: JSON over HTTPS, one connection a question. Nothing is believed that TLS does
not vouch for; no redirect is followed; the answer is bounded in size and time.

`roots_of` is the one exception: it asks before anything is trusted, sends nothing, and what it gets counts only by its
fingerprint.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import serialization

from edge_runtime import __version__
from edge_runtime.errors import ConfigError, DataError, EndpointError, GudgeonError
from edge_runtime.identity.credentials import Credentials, read_chain
from edge_runtime.identity.key_source import KeySource
from edge_runtime.update.fetch import proxy as proxies
from edge_runtime.wire.enrolment import LIMIT_BYTES, VERSION, Certified, proof_bytes, read_answer, read_certified

STEP_S, TOTAL_S = 20.0, 60.0
PORTAL = "is there a login page of the network in between?"
MISNAMED = "use a name that the cloud has in devices.names of its cloud.toml"
#: of OpenSSL: the certificate is for another host name, or another address
NAME_CODES = (62, 64)
API = "/device/v1"
FIRST_ROOT = "/repo/metadata/1.root.json"


class CloudRefusedError(GudgeonError):
    """The cloud has heard us and says no: to ask again at once is of no use."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class Cloud:
    """The listener for devices at `url`. `judge` prepares each context, for a clock that is wrong (`link.time_floor`)."""

    def __init__(self, url: str, judge: Callable[[ssl.SSLContext], None] = lambda context: None) -> None:
        self.url = url.rstrip("/")
        try:
            parts = urlsplit(self.url)
            self._host, self._port = parts.hostname or "", parts.port or 443
        except ValueError as error:
            raise ConfigError(f"{url[:200]!r}: {error}; expected https://HOST:PORT") from error
        if parts.scheme != "https" or not self._host or parts.path or parts.query or parts.username is not None:
            raise ConfigError(f"{url[:200]!r}: expected https://HOST:PORT")
        self._judge = judge

    # ── the questions ───────────────────────────────────────────────────────────────────────────────────────────────

    def roots_of(self, fingerprint: str) -> str:
        """The root with this SHA-256, in PEM."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        found = self._read(self._ask(context, "GET", f"{API}/roots"), "roots")["roots"]
        for root in read_chain(found.encode(), f"{self.url}: roots"):
            der = root.public_bytes(serialization.Encoding.DER)
            if hashlib.sha256(der).hexdigest() == fingerprint:
                return root.public_bytes(serialization.Encoding.PEM).decode()
        raise DataError(
            f"{self.url}: none of its roots has the fingerprint of the token ({fingerprint[:16]}…): this is not the cloud that "
            f"made the token; {PORTAL}"
        )

    def enrol(self, context: ssl.SSLContext, token: str, hardware: str, csr: str) -> Certified:
        asked = {"v": VERSION, "token": token, "hardware": hardware, "csr": csr}
        return self._certified(self._ask(context, "POST", f"{API}/enrol", asked))

    def works(self, credentials: Credentials) -> None:
        """Returns where the cloud knows the device by these."""
        path = f"{API}/devices/{credentials.device}/certificate"
        found = self._read(self._ask(credentials.context(), "GET", path), "device", "serial")
        shown = credentials.certificate()
        if found != {"device": credentials.device, "serial": f"{shown.serial_number:040x}"}:
            raise DataError(f"{self.url}: takes this device for {found['device'][:64]!r}")

    def command_key(self, credentials: Credentials) -> str:
        """The public key, one line of base64, that this cloud signs desired state and commands with."""
        path = f"{API}/devices/{credentials.device}/key"
        return self._read(self._ask(credentials.context(), "GET", path), "public_key")["public_key"]

    def first_root(self, credentials: Credentials, limit_bytes: int) -> bytes:
        """Of the repository of releases; CloudRefusedError with status 404 where there is none."""
        return self._ask(credentials.context(), "GET", FIRST_ROOT, limit_bytes=limit_bytes)

    def renew(self, credentials: Credentials, csr: str) -> Certified:
        path = f"{API}/devices/{credentials.device}/certificate"
        return self._certified(self._ask(credentials.context(), "POST", path, {"v": VERSION, "csr": csr}))

    def renew_expired(self, context: ssl.SSLContext, credentials: Credentials, csr: str) -> Certified:
        """With a proof, by a connection that shows no certificate; `context` trusts the cloud."""
        path = f"{API}/devices/{credentials.device}"
        challenge = self._read(self._ask(context, "POST", f"{path}/challenge", {"v": VERSION}), "challenge")[
            "challenge"
        ]
        proof = _prove(credentials.key, credentials.device, challenge, csr)
        old = credentials.certificate().public_bytes(serialization.Encoding.PEM).decode()
        asked = {"v": VERSION, "csr": csr, "certificate": old, "challenge": challenge, "proof": proof}
        return self._certified(self._ask(context, "POST", f"{path}/certificate", asked))

    # ── how ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _ask(
        self,
        context: ssl.SSLContext,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        limit_bytes: int = LIMIT_BYTES,
    ) -> bytes:
        self._judge(context)
        connection = self._connection(context)
        timer = threading.Timer(TOTAL_S, _cut, (connection,))
        timer.daemon = True
        timer.start()
        try:
            data = None if body is None else json.dumps(body).encode()
            headers = {
                "user-agent": f"gudgeon/{__version__}",
                "content-type": "application/json",
                "connection": "close",
            }
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            status, got = answer.status, answer.read(limit_bytes + 1)
        except ssl.SSLCertVerificationError as error:
            hint = MISNAMED if error.verify_code in NAME_CODES else PORTAL
            raise EndpointError(
                f"{self.url}: its certificate is not one of our cloud: {error.verify_message.rstrip('.')}; {hint}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise EndpointError(
                f"{self.url}: {str(error) or type(error).__name__}; check address and network"
            ) from error
        finally:
            timer.cancel()
            connection.close()
        if status != 200:
            raise self._refusal(status, got)
        return got

    def _connection(self, context: ssl.SSLContext) -> http.client.HTTPSConnection:
        proxy = proxies.choose("", os.environ, "https", self._host)
        if proxy is None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=STEP_S, context=context)
        connection = http.client.HTTPSConnection(proxy.host, proxy.port, timeout=STEP_S, context=context)
        headers = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
        connection.set_tunnel(self._host, self._port, headers)
        return connection

    def _refusal(self, status: int, got: bytes) -> GudgeonError:
        try:
            detail = str(json.loads(got)["detail"])[:500]
        except (ValueError, KeyError, TypeError):
            return EndpointError(f"{self.url}: HTTP {status}, and no answer of our cloud; {PORTAL}")
        if status == 429 or status >= 500:
            return EndpointError(f"{self.url}: HTTP {status}: {detail}")
        return CloudRefusedError(f"the cloud refuses: {detail}", status)

    def _read(self, data: bytes, *names: str) -> dict[str, str]:
        try:
            return read_answer(data, "answer", *names)
        except ValueError as error:
            raise EndpointError(f"{self.url}: {error}; {PORTAL}") from error

    def _certified(self, data: bytes) -> Certified:
        try:
            return read_certified(data)
        except ValueError as error:
            raise EndpointError(f"{self.url}: {error}; {PORTAL}") from error


def _prove(key: KeySource, device: str, challenge: str, csr: str) -> str:
    return base64.b64encode(key.sign(proof_bytes(device, challenge, csr))).decode()


def _cut(connection: http.client.HTTPSConnection) -> None:
    """The time is up, however slowly something still comes."""
    sock = connection.sock
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
