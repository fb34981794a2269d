"""The cloud, a provider of identities, and one browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine

from cloud.access.oidc import CodeFlow
from cloud.access.tests.made import Web
from cloud.access.tests.provider import CLIENT, SECRET, Provider
from cloud.settings import OidcSection

CALLBACK = "/login/oidc/callback"


class Site(Web):
    """The cloud and a provider. `browser` has the cookies of one browser."""

    def __init__(self, engine: Engine, folder: Path, provider: Provider) -> None:
        super().__init__(engine, folder)
        secret = folder / "oidc"
        secret.write_text(SECRET + "\n")
        secret.chmod(0o600)
        roles = {"line-leads": "operator", "admins": "admin"}
        section = OidcSection(provider.issuer, CLIENT, secret, "http://127.0.0.1:8080", roles=roles)
        self.provider, provider.now_s = provider, lambda: self.clock.wall_ns() / 1e9
        self.access.settings = replace(self.settings, oidc=section)
        self.app.state.oidc = CodeFlow(section, provider.now_s)
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:  # type: ignore[override]
        answer = super().ask(method, path, cookies=self.cookies, **more)
        self.cookies |= dict(answer.cookies)
        return answer

    def back_from_provider(self) -> str:
        """Begin here, sign in there; the path that the browser comes back with."""
        begun = self.ask("GET", "/login/oidc")
        assert begun.status_code == 303
        there = httpx.get(begun.headers["location"], trust_env=False)
        return CALLBACK + "?" + there.headers["location"].partition("?")[2]

    def signed_in(self) -> Any:
        return self.ask("GET", "/api/v1/session").json()
