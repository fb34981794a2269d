"""A small HTTPS server that answers as step-ca's documented API does: it checks each token as a JWK provisioner would,
signs with a real authority, and keeps a CRL. Not step-ca itself."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from cloud.ca.authority import Revoked, Wanted
from cloud.ca.certificates import common_name
from cloud.ca.local import LocalAuthority
from cloud.ca.step import thumbprint
from cloud.devices.served import Served

LONGEST = timedelta(days=90, minutes=20)


class StepServer:
    """`key`: of the JWK provisioner `name`."""

    def __init__(self, folder: Path, name: str, key: ec.EllipticCurvePublicKey) -> None:
        self._name, self._key, self._used = name, key, set[str]()
        self.authority = LocalAuthority(folder / "step")
        self.authority.create("Step", datetime.now(UTC))
        self.revoked: list[Revoked] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"https://127.0.0.1:{self._http.server_address[1]}"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        Served(folder, ("127.0.0.1",), self.authority, lambda: round(datetime.now(UTC).timestamp() * 1e9)).load(context)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/1.0/crl?pem":
                    self._send(200, server.authority.crl(server.revoked, datetime.now(UTC)))
                elif self.path == "/1.0/roots":
                    roots = x509.load_pem_x509_certificates(server.authority.roots())
                    self._send(201, json.dumps({"crts": [_pem(root) for root in roots]}).encode())
                else:
                    self._send(404, b"{}")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                try:
                    answer = server.sign(body) if self.path == "/1.0/sign" else server.revoke(body)
                except (ValueError, InvalidSignature, KeyError) as error:
                    self._send(401, json.dumps({"status": 401, "message": str(error)}).encode())
                else:
                    self._send(201 if self.path == "/1.0/sign" else 200, json.dumps(answer).encode())

            def _send(self, status: int, data: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def sign(self, body: dict[str, Any]) -> dict[str, Any]:
        claims = self._claims(body["ott"], "sign")
        request = x509.load_pem_x509_csr(body["csr"].encode())
        if common_name(request) != claims["sub"]:
            raise ValueError("certificate request does not contain the valid common name")
        begins, ends = (datetime.fromisoformat(body[name]) for name in ("notBefore", "notAfter"))
        if ends - begins > LONGEST:
            raise ValueError("requested duration is more than the authorized maximum")
        names = tuple(name for name in claims["sans"] if not name.startswith("urn:"))
        wanted = Wanted(claims["sub"], ends - datetime.now(UTC), "server" if names else "device", names)
        issued = self.authority.issue(request, wanted, datetime.now(UTC))
        chain = [_pem(issued.certificate), *map(_pem, x509.load_pem_x509_certificates(issued.chain))]
        return {"crt": chain[0], "ca": chain[1], "certChain": chain}

    def revoke(self, body: dict[str, Any]) -> dict[str, Any]:
        claims = self._claims(body["ott"], "revoke")
        if claims["sub"] != body["serial"] or body["passive"] is not True or not 0 <= body["reasonCode"] <= 10:
            raise ValueError("bad revocation")
        self.revoked.append(Revoked(int(body["serial"]), datetime.now(UTC)))
        return {"status": "ok"}

    def _claims(self, ott: str, action: str) -> dict[str, Any]:
        head, claims, signature = ott.split(".")
        raw = _unb64(signature)
        der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
        self._key.verify(der, f"{head}.{claims}".encode(), ec.ECDSA(hashes.SHA256()))
        read: dict[str, Any] = json.loads(_unb64(claims))
        now_s = datetime.now(UTC).timestamp()
        if json.loads(_unb64(head)) != {"alg": "ES256", "kid": thumbprint(self._key), "typ": "JWT"}:
            raise ValueError("bad header")
        if (read["iss"], read["aud"]) != (self._name, f"{self.url}/1.0/{action}"):
            raise ValueError("bad issuer or audience")
        if not read["nbf"] - 60 <= now_s <= read["exp"] + 60 or read["jti"] in self._used:
            raise ValueError("the token has expired or was used")
        self._used.add(read["jti"])
        return read

    def start(self) -> None:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), name="step", daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def step_server(folder: Path, name: str, key: ec.EllipticCurvePublicKey) -> Iterator[StepServer]:
    server = StepServer(folder, name, key)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
