"""Sign in with an OpenID Connect provider: authorization code with PKCE.

`Provider` is the seam; `CodeFlow` speaks to a real one. Checked of the ID token: signature by a key of the provider and an
algorithm of `ALGORITHMS`, issuer, audience (and `azp`), `exp`, `iat`, and the nonce of this very sign-in. A sign-in is begun
and ended by the same browser (`Pending`: state and cookie), once, within ten minutes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from cloud.access.operators import digest
from cloud.access.roles import Role
from cloud.settings import OidcSection, is_loopback
from edge_runtime.errors import EndpointError
from edge_runtime.mqtt_access import secret_file

ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]
ANSWER_BYTES = 256 * 1024
TIMEOUT_S = 10.0
LEEWAY_S = 60
PENDING_S, PENDING = 600.0, 1000
CALLBACK = "/login/oidc/callback"


class Begun(NamedTuple):
    """`url`: where the browser goes."""

    url: str
    state: str
    nonce: str
    verifier: str


class Identity(NamedTuple):
    """Who the provider says this is. `name` is unique and does not change; `shown` is for people."""

    name: str
    shown: str
    role: Role


class Provider(Protocol):
    def begin(self) -> Begun: ...

    def finish(self, code: str, begun: Begun) -> Identity:
        """ValueError where the provider's answer does not count, EndpointError where there is none."""
        ...


@dataclass
class Pending:
    """Sign-ins that were begun; each is taken once."""

    now_s: Callable[[], float]

    def __post_init__(self) -> None:
        self._begun: OrderedDict[str, tuple[Begun, str, float]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, begun: Begun) -> str:
        """The cookie for the browser that begins."""
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            self._begun[begun.state] = (begun, digest(cookie), self.now_s() + PENDING_S)
            if len(self._begun) > PENDING:
                self._begun.popitem(last=False)
        return cookie

    def take(self, state: str, cookie: str) -> Begun:
        """ValueError unless this browser began it, not long ago, and did not end it yet."""
        with self._lock:
            begun, kept, until_s = self._begun.pop(state, (None, "", 0.0))
        if begun is None or until_s < self.now_s():
            raise ValueError("this sign-in was not begun here, or is over; begin again")
        if not secrets.compare_digest(kept, digest(cookie)):
            raise ValueError("this sign-in was begun in another browser; begin again")
        return begun


class CodeFlow:
    def __init__(
        self, section: OidcSection, now_s: Callable[[], float], transport: httpx.BaseTransport | None = None
    ) -> None:
        self._section, self._now_s = section, now_s
        self._secret = secret_file(section.client_secret_file) if section.client_secret_file else ""
        self._client = httpx.Client(timeout=TIMEOUT_S, trust_env=False, transport=transport)

    def begin(self) -> Begun:
        found, section = self._discover(), self._section
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        asked = {
            "response_type": "code", "client_id": section.client_id, "redirect_uri": section.base_url + CALLBACK,
            "scope": section.scopes, "state": state, "nonce": nonce, "code_challenge": challenge_of(verifier),
            "code_challenge_method": "S256",
        }  # fmt: skip
        where = str(found["authorization_endpoint"])
        return Begun(f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}", state, nonce, verifier)

    def finish(self, code: str, begun: Begun) -> Identity:
        found, section = self._discover(), self._section
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": section.base_url + CALLBACK,
            "client_id": section.client_id, "code_verifier": begun.verifier,
        }  # fmt: skip
        auth = (section.client_id, self._secret) if self._secret else None
        told = self._ask("POST", str(found["token_endpoint"]), data=form, auth=auth)
        keys = self._ask("GET", str(found["jwks_uri"]))
        return self._identity(str(told.get("id_token", "")), keys, begun.nonce)

    def _identity(self, token: str, keys: Mapping[str, Any], nonce: str) -> Identity:
        section = self._section
        rules = jwt.JWTClaimsRegistry(
            now=lambda: int(self._now_s()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": section.issuer},
            aud={"essential": True, "value": section.client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            key_set = KeySet.import_key_set({"keys": list(keys.get("keys", []))})
            claims = jwt.decode(token, key_set, algorithms=ALGORITHMS).claims
            rules.validate(claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"the provider's ID token does not count: {error}") from error
        audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if (len(audience) > 1 or "azp" in claims) and claims.get("azp") != section.client_id:
            raise ValueError("the provider's ID token is for others, too, and not made out to us (azp)")
        return Identity(f"oidc:{claims['sub']}", _shown(claims), self._role(claims))

    def _role(self, claims: Mapping[str, Any]) -> Role:
        told = claims.get(self._section.role_claim, [])
        values = told if isinstance(told, list) else [told]
        found = [Role.of(self._section.roles[v]) for v in values if isinstance(v, str) and v in self._section.roles]
        if not found:
            raise ValueError(
                f"the provider gives no role here: nothing in {self._section.role_claim} is listed in oidc.roles"
            )
        return max(found)

    def _discover(self) -> dict[str, Any]:
        issuer = self._section.issuer
        found = self._ask("GET", issuer.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != issuer:
            raise ValueError(f"the provider says that it is {found.get('issuer')!r}, expected {issuer}")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not secure(str(found.get(name, ""))):
                raise ValueError(f"the provider's {name} is not reached with TLS: {found.get(name)!r}")
        return found

    def _ask(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        try:
            with self._client.stream(method, url, headers={"accept": "application/json"}, **more) as answer:
                data = b""
                for chunk in answer.iter_bytes():
                    data += chunk
                    if len(data) > ANSWER_BYTES:
                        raise EndpointError(f"{url}: the answer is over the limit of {ANSWER_BYTES} bytes")
                if answer.status_code != 200:
                    raise EndpointError(f"{url}: {answer.status_code}; check [oidc] and what the provider logs")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise EndpointError(f"{url}: {error}; check oidc.issuer and the network") from error
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise EndpointError(f"{url}: not JSON: {error}") from error
        if not isinstance(value, dict):
            raise EndpointError(f"{url}: expected a JSON object")
        return value


def challenge_of(verifier: str) -> str:
    """S256 of RFC 7636."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def secure(url: str) -> bool:
    """TLS, or this machine."""
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    )


def _shown(claims: Mapping[str, Any]) -> str:
    for name in ("email", "preferred_username", "name", "sub"):
        if isinstance(claims.get(name), str) and claims[name]:
            return str(claims[name])[:200]
    return ""
