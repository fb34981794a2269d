"""Sign in with a real OpenID Connect provider on loopback, which is wrong in one way at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from cloud.access import operators
from cloud.access.admission import COOKIE
from cloud.access.oidc import PENDING, Begun, Pending
from cloud.access.tests.made import SHELL, Web
from cloud.access.tests.provider import CLIENT, running_provider
from cloud.access.tests.site import CALLBACK, Site
from cloud.api.session import OIDC_COOKIE
from cloud.audit.log import rows
from cloud.settings import CloudSettings, load_cloud
from edge_runtime.errors import ConfigError


@pytest.fixture
def site(sqlite: Engine, tmp_path: Path) -> Iterator[Site]:
    with running_provider() as provider:
        yield Site(sqlite, tmp_path, provider)


def test_who_signs_in_there_is_signed_in_here(site: Site) -> None:
    begun = site.ask("GET", "/login/oidc")
    cookie = begun.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "Secure", "SameSite=lax", "Path=/login/oidc"))
    answer = site.ask("GET", site.back_from_provider())
    assert answer.status_code == 200
    assert 'url=/"' in answer.text
    told = site.signed_in()
    assert (told["name"], told["role"], told["via"]) == ("oidc:u-17", "operator", "oidc")
    with site.engine.connect() as connection:
        last = list(rows(connection))[-1][0]
    assert (last.actor, last.action, json.loads(last.detail)) == (
        "oidc:u-17",
        "session.begin",
        {"shown": "ada@example.com"},
    )
    assert site.get("/api/v1/devices") == 200
    site.clock.advance(13 * 3600)
    assert site.get("/api/v1/devices") == 401


def test_the_session_of_a_provider_can_be_ended_here(site: Site) -> None:
    site.ask("GET", site.back_from_provider())
    (one,) = operators.sessions(site.engine, site.clock.wall_ns())
    assert (one["name"], one["via"], "hash" in one) == ("oidc:u-17", "oidc", False)
    assert operators.sign_out(site.engine, SHELL, "oidc:u-17", site.clock.wall_ns()) == 1
    assert site.get("/api/v1/devices") == 401
    with site.engine.connect() as connection:
        last = list(rows(connection))[-1][0]
    assert (last.actor, last.action, last.subject) == (SHELL.name, "session.end", "oidc:u-17")
    with pytest.raises(ValueError, match="nobody is signed in as"):
        operators.sign_out(site.engine, SHELL, "oidc:u-17", site.clock.wall_ns())


Lie = Callable[[dict[str, Any]], dict[str, Any]]
LIES: dict[str, Lie] = {
    "another audience": lambda c: c | {"aud": "payroll"},
    "more audiences, without azp": lambda c: c | {"aud": [CLIENT, "payroll"]},
    "made out to another": lambda c: c | {"azp": "payroll"},
    "another issuer": lambda c: c | {"iss": "https://elsewhere.example"},
    "another nonce": lambda c: c | {"nonce": "replayed"},
    "no nonce": lambda c: {k: v for k, v in c.items() if k != "nonce"},
    "expired": lambda c: c | {"exp": c["iat"] - 61},
    "no expiry": lambda c: {k: v for k, v in c.items() if k != "exp"},
    "issued later": lambda c: c | {"iat": c["iat"] + 3600},
    "no subject": lambda c: {k: v for k, v in c.items() if k != "sub"},
    "no group": lambda c: {k: v for k, v in c.items() if k != "groups"},
    "a group without a role": lambda c: c | {"groups": ["canteen"]},
    "a group that is no text": lambda c: c | {"groups": [{"admins": 1}]},
}


@pytest.mark.parametrize("lie", LIES)
def test_an_id_token_that_is_wrong_signs_nobody_in(site: Site, lie: str) -> None:
    site.provider.lie = LIES[lie]
    assert site.ask("GET", site.back_from_provider()).status_code == 403
    assert site.signed_in()["name"] is None
    assert COOKIE not in site.cookies
    with site.engine.connect() as connection:
        last = list(rows(connection))[-1][0]
    assert (last.action, last.outcome) == ("session.begin", "refused")


@pytest.mark.parametrize("how", ["another key", "no signature", "the public key as a secret", "rubbish", "nothing"])
def test_an_id_token_that_the_provider_did_not_sign_signs_nobody_in(site: Site, how: str) -> None:
    provider = site.provider
    provider.sign = {
        "another key": lambda claims: provider.signed(claims, provider.other),
        "no signature": provider.unsigned,
        "the public key as a secret": provider.signed_with_the_public_key,
        "rubbish": lambda _: "a.b.c",
        "nothing": lambda _: "",
    }[how]
    assert site.ask("GET", site.back_from_provider()).status_code == 403
    assert site.signed_in()["name"] is None


def test_the_answer_of_a_sign_in_counts_once(site: Site) -> None:
    path = site.back_from_provider()
    assert site.ask("GET", path).status_code == 200
    assert site.ask("GET", path).status_code == 403


def test_the_answer_counts_in_the_browser_that_began_only(site: Site) -> None:
    path = site.back_from_provider()
    site.cookies = {}  # a link that an attacker sends
    assert site.ask("GET", path).status_code == 403
    site.ask("GET", "/login/oidc")
    assert OIDC_COOKIE in site.cookies
    assert site.ask("GET", path).status_code == 403


def test_a_sign_in_lasts_ten_minutes(site: Site) -> None:
    path = site.back_from_provider()
    site.clock.advance(601)
    assert site.ask("GET", path).status_code == 403


@pytest.mark.parametrize(
    ("change", "says"),
    [("&state=x", 403), ("&iss=https://elsewhere.example", 403), ("&error=access_denied", 403), ("&code=guessed", 502)],
)
def test_an_answer_with_another_word_is_refused(site: Site, change: str, says: int) -> None:
    path = site.back_from_provider()
    assert site.ask("GET", path + change).status_code == says
    assert site.signed_in()["name"] is None


def test_a_provider_that_is_not_the_one_is_refused(site: Site) -> None:
    site.provider.issuer_told = "https://elsewhere.example"
    answer = site.ask("GET", "/login/oidc")
    assert answer.status_code == 502
    assert "expected http://127.0.0.1" in answer.json()["detail"]


def test_without_a_provider_there_is_nothing_to_begin(sqlite: Engine, tmp_path: Path) -> None:
    web = Web(sqlite, tmp_path)
    assert web.ask("GET", "/login/oidc").status_code == 404
    assert web.ask("GET", CALLBACK).status_code == 404


def test_sign_ins_that_are_begun_are_bounded() -> None:
    pending = Pending(lambda: 0.0)
    cookies = [pending.keep(Begun("", str(n), "", "")) for n in range(PENDING + 1)]
    with pytest.raises(ValueError, match="is over"):
        pending.take("0", cookies[0])
    assert pending.take(str(PENDING), cookies[PENDING]).state == str(PENDING)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('issuer = "http://login.example"', "expected https://"),
        ('issuer = "https://login.example"', "base_url is ''"),
        ('issuer = "https://a.example"\nbase_url = "https://b.example/"', "without a slash"),
        (
            'issuer = "https://a.example"\nbase_url = "https://b.example"\nclient_id = "c"\nroles = { x = "boss" }',
            "no role 'boss'",
        ),
    ],
)
def test_settings_that_do_not_fit_are_told(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "cloud.toml").write_text(f"[oidc]\n{text}\n")
    with pytest.raises(ConfigError, match=says):
        load_cloud(tmp_path / "cloud.toml")
    assert CloudSettings().oidc.issuer == ""
