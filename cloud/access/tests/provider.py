"""A small OpenID Connect provider on loopback: discovery, authorization code with PKCE, token endpoint, keys. `lie` makes it
wrong in one way, as a broken or hostile one would be."""

from __future__ import annotations

import base64
import http.server
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from cloud.access.oidc import challenge_of

CLIENT, SECRET = "gudgeon", "s3cret-of-the-client"
Claims = dict[str, Any]


class Provider:
    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "k1", "use": "sig"})
        self.other = ECKey.generate_key("P-256", {"kid": "k1", "use": "sig"})
        self.codes: dict[str, dict[str, str]] = {}
        self.groups: Any = ["line-leads", "canteen"]
        self.lie: Callable[[Claims], Claims] = lambda claims: claims
        self.sign: Callable[[Claims], str] = lambda claims: self.signed(claims, self.key)
        self.issuer_told = ""
        self.asked: list[str] = []
        self.now_s: Callable[[], float] = time.time
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.get(self)

            def do_POST(self) -> None:
                outer.post(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @staticmethod
    def signed(claims: Claims, key: Any, alg: str = "ES256") -> str:
        return jwt.encode({"alg": alg, "kid": "k1"}, claims, key, algorithms=[alg])

    def unsigned(self, claims: Claims) -> str:
        parts = ({"alg": "none", "kid": "k1"}, claims)
        texts = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts]
        return ".".join([*texts, ""])

    def signed_with_the_public_key(self, claims: Claims) -> str:
        public = json.dumps(self.key.as_dict(private=False))
        return self.signed(claims, OctKey.import_key(public), "HS256")

    def get(self, request: Any) -> None:
        parts = urlsplit(request.path)
        self.asked.append(parts.path)
        if parts.path == "/.well-known/openid-configuration":
            names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            found = {name: f"{self.issuer}/{path}" for name, path in names.items()}
            _answer(request, 200, {"issuer": self.issuer_told or self.issuer, **found})
        elif parts.path == "/keys":
            _answer(request, 200, {"keys": [self.key.as_dict(private=False)]})
        elif parts.path == "/authorize":  # whoever comes is signed in already
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if asked["client_id"] != CLIENT or asked["code_challenge_method"] != "S256":
                _answer(request, 400, {"error": "invalid_request"})
                return
            code = secrets.token_urlsafe(16)
            self.codes[code] = asked
            request.send_response(302)
            request.send_header(
                "location", asked["redirect_uri"] + "?" + urlencode({"code": code, "state": asked["state"]})
            )
            request.end_headers()
        else:
            _answer(request, 404, {})

    def post(self, request: Any) -> None:
        body = request.rfile.read(int(request.headers["content-length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.asked.append(urlsplit(request.path).path)
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        asked = self.codes.pop(form["code"], None)
        fits = asked is not None and request.headers["authorization"] == f"Basic {basic}"
        if not fits or asked is None or challenge_of(form["code_verifier"]) != asked["code_challenge"]:
            _answer(request, 400, {"error": "invalid_grant"})
            return
        now_s = int(self.now_s())
        claims: Claims = {
            "iss": self.issuer, "aud": CLIENT, "sub": "u-17", "iat": now_s, "exp": now_s + 300, "nonce": asked["nonce"],
            "email": "ada@example.com", "groups": self.groups,
        }  # fmt: skip
        _answer(request, 200, {"access_token": "x", "token_type": "Bearer", "id_token": self.sign(self.lie(claims))})


def _answer(request: Any, status: int, value: Any) -> None:
    body = json.dumps(value).encode()
    request.send_response(status)
    request.send_header("content-type", "application/json")
    request.send_header("content-length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


@contextmanager
def running_provider() -> Iterator[Provider]:
    provider = Provider()
    try:
        yield provider
    finally:
        provider.close()
