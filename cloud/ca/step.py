"""step-ca as the authority, over its HTTP API: /1.0/sign, /1.0/revoke, /1.0/roots, /1.0/crl.

Each question that signs or revokes carries a one-time token: a JWT made with the key of a JWK provisioner (ES256), good for a
few minutes and one use. The provisioner's `maxTLSCertDuration` must allow our lives, and `crl` must be enabled for brokers.
What step-ca puts into a certificate beside name and time is its template's matter.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from cloud.ca.authority import BACKDATED, Authority, Issued, Revoked, Wanted
from cloud.ca.certificates import urn
from edge_runtime.durable import disk_errors
from edge_runtime.errors import ConfigError, EndpointError, GudgeonError
from edge_runtime.mqtt_access import secret_file

TIMEOUT_S = 15.0
TOKEN_LIFE = timedelta(minutes=5)
ANSWER_LIMIT_BYTES = 1024 * 1024
REASONS = {"stolen": 1, "replaced": 4, "enrolled anew": 4}  # RFC 5280: keyCompromise, superseded; else unspecified
_RAW_BYTES = 32


class Provisioner:
    """Makes the tokens. The key is an EC P-256 private key in PEM; its JWK thumbprint (RFC 7638) is what the CA calls it."""

    def __init__(self, name: str, key_file: Path, url: str) -> None:
        self._name, self._url = name, url
        try:
            key = serialization.load_pem_private_key(secret_file(key_file).encode(), None)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{key_file}: not a private key in PEM; export it with: step crypto jwe decrypt"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ConfigError(f"{key_file}: expected an elliptic curve key on P-256")
        self._key, self.kid = key, thumbprint(key.public_key())

    def token(self, action: str, subject: str, names: Sequence[str], now: datetime) -> str:
        begins = int(now.timestamp())
        claims: dict[str, Any] = {
            "aud": f"{self._url}/1.0/{action}", "iss": self._name, "sub": subject, "jti": secrets.token_hex(32),
            "iat": begins, "nbf": begins, "exp": begins + int(TOKEN_LIFE.total_seconds()),
        }  # fmt: skip
        if names:
            claims["sans"] = list(names)
        head = {"alg": "ES256", "kid": self.kid, "typ": "JWT"}
        signed = f"{_b64(_json(head))}.{_b64(_json(claims))}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_b64(r.to_bytes(_RAW_BYTES) + s.to_bytes(_RAW_BYTES))}"


class StepAuthority(Authority):
    def __init__(self, url: str, root_file: Path, provisioner: str, key_file: Path) -> None:
        self._url = url.rstrip("/")
        self._provisioner = Provisioner(provisioner, key_file, self._url)
        with disk_errors(root_file):
            root = root_file.read_text()
        try:
            context = ssl.create_default_context(cadata=root)
        except ssl.SSLError as error:
            raise ConfigError(f"{root_file}: expected the root certificate of step-ca in PEM") from error
        self._client = httpx.Client(verify=context, timeout=TIMEOUT_S, trust_env=False)

    def issue(self, request: x509.CertificateSigningRequest, wanted: Wanted, now: datetime) -> Issued:
        names = wanted.names or (urn(wanted.common_name),)
        asked = {
            "csr": request.public_bytes(serialization.Encoding.PEM).decode(),
            "ott": self._provisioner.token("sign", wanted.common_name, names, now),
            "notBefore": _rfc3339(now - BACKDATED),
            "notAfter": _rfc3339(now + wanted.life),
        }
        answer = self._ask("POST", "sign", asked)
        try:
            chain = [x509.load_pem_x509_certificate(text.encode()) for text in answer["certChain"]]
            issued = Issued(chain[0], b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain[1:]))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise EndpointError(f"{self._url}: the answer has no certChain with certificates in PEM") from error
        if issued.certificate.public_key() != request.public_key():
            raise EndpointError(f"{self._url}: the certificate is for another key than was asked for")
        return issued

    def revoke(self, serial: int, reason: str) -> None:
        ott = self._provisioner.token("revoke", str(serial), (), datetime.now().astimezone())
        asked = {
            "serial": str(serial),
            "ott": ott,
            "reasonCode": REASONS.get(reason, 0),
            "reason": reason,
            "passive": True,
        }
        self._ask("POST", "revoke", asked)

    def crl(self, revoked: Sequence[Revoked], now: datetime) -> bytes:
        """That of step-ca, which was told of every revocation by `revoke`."""
        return self._send("GET", "crl?pem").content

    def roots(self) -> bytes:
        found = self._ask("GET", "roots").get("crts")
        if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
            raise EndpointError(f"{self._url}: the answer has no root certificates")
        return "".join(one.strip() + "\n" for one in found).encode()

    def rotation(self) -> str:
        return ""

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        try:
            found = self._send(method, path, body).json()
        except ValueError as error:
            raise EndpointError(f"{self._url}/1.0/{path}: the answer is not JSON") from error
        if not isinstance(found, dict):
            raise EndpointError(f"{self._url}/1.0/{path}: the answer is no JSON object")
        return found

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        url = f"{self._url}/1.0/{path}"
        try:
            answer = self._client.request(method, url, json=body)
        except httpx.HTTPError as error:
            raise EndpointError(f"{url}: {error}; check ca.url and that step-ca runs") from error
        if len(answer.content) > ANSWER_LIMIT_BYTES:
            raise EndpointError(
                f"{url}: an answer of {len(answer.content)} bytes is over the limit of {ANSWER_LIMIT_BYTES}"
            )
        if not answer.is_success:
            raise GudgeonError(
                f"{url}: HTTP {answer.status_code}: {answer.text[:300]}; check provisioner and its limits"
            )
        return answer


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """RFC 7638: SHA-256 of the members that the kind of key requires, in this order."""
    return _b64(hashlib.sha256(_json(jwk(key))).digest())


def jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    return {
        "crv": "P-256",
        "kty": "EC",
        "x": _b64(numbers.x.to_bytes(_RAW_BYTES)),
        "y": _b64(numbers.y.to_bytes(_RAW_BYTES)),
    }


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _rfc3339(at: datetime) -> str:
    return at.astimezone().isoformat(timespec="seconds")
