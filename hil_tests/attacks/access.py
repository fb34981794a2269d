"""Attacks on who may do what in the cloud, and on the log of what was done. Most go through the web application as it is served,
some go behind it, to the database."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from cloud.access import operators, sessions
from cloud.access.admission import COOKIE, CSRF_HEADER
from cloud.access.roles import Actor, Role
from cloud.access.routes import ROLES
from cloud.access.tests.made import PASSWORD, SHELL, WRITE, Web
from cloud.access.tests.provider import running_provider
from cloud.access.tests.site import Site
from cloud.audit.checkpoint import look, sign
from cloud.audit.cli import main as audit
from cloud.audit.log import record_alone, rows
from cloud.audit.tests.test_archive import FILES, STORE, archived_twice
from cloud.audit.tests.test_verify import KEY as AUDIT_KEY
from cloud.audit.tests.test_verify import TAMPERED, filled, tamper
from cloud.store import twin
from cloud.tests.databases import empty_store
from edge_runtime.errors import GudgeonError
from edge_runtime.identity import load_or_make, public_text
from hil_tests.attacks.row import Attack

ADA = Actor("ada", Role.OPERATOR, "session")
DAY_S = 86_400


# ── the log ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def on_the_log(how: str) -> Attack:
    told = TAMPERED[how][1]

    def run(place: Path) -> None:
        with empty_store("sqlite", place) as engine:
            anchor = place / "cloud.audit"
            filled(engine, anchor)
            assert look(engine, AUDIT_KEY.public_key(), anchor).findings == []
            before = anchor.read_bytes()
            tamper(engine, how)
            findings = look(engine, AUDIT_KEY.public_key(), anchor).findings
            assert any(told in finding for finding in findings), findings
            assert anchor.read_bytes() == before

    return Attack("audit", how, told, run)


def on_the_archive(how: str) -> Attack:
    """On its files, or on the store that goes on from them."""
    told = (FILES[how] if how in FILES else STORE[how])[1]

    def run(place: Path) -> None:
        with empty_store("sqlite", place) as engine:
            log = archived_twice(engine, place)
            assert log.report().findings == []
            if how in FILES:
                FILES[how][0](log)
            else:
                log.write(STORE[how][0]())
            findings = log.report().findings
            assert any(told in finding for finding in findings), findings

    return Attack("audit", f"archive: {how}", told, run)


def rolled_back_with_its_anchor(place: Path) -> None:
    with empty_store("sqlite", place) as engine:
        anchor = place / "cloud.audit"
        filled(engine, anchor)
        elsewhere = anchor.read_text()
        tamper(engine, "everything wiped")
        anchor.unlink()
        assert "the end was cut off" in look(engine, AUDIT_KEY.public_key(), anchor, [elsewhere]).findings[0]


def edited_before_it_was_signed(place: Path) -> None:
    with empty_store("sqlite", place) as engine:
        anchor = place / "cloud.audit"
        filled(engine, anchor)
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE audit SET actor = 'bob' WHERE seq = 9")
        with pytest.raises(GudgeonError, match="row 9 was edited"):
            sign(engine, AUDIT_KEY, anchor, 20)


def export_cut_off(place: Path) -> None:
    (place / "cloud.toml").write_text("")
    key = load_or_make(place / "cloud.key")
    with empty_store("sqlite", place) as engine:
        for n in range(5):
            record_alone(engine, ADA, "test.act", str(n))
    file = place / "audit.jsonl"
    assert audit(["export", "--config", str(place / "cloud.toml"), "--out", str(file)]) == 0
    words = ["verify", "--export", str(file), "--key", public_text(key)]
    assert audit(words) == 0
    file.write_bytes(b"\n".join(file.read_bytes().splitlines()[:-1]) + b"\n")
    assert audit(words) == 1


# ── the web application ─────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def web(place: Path) -> Any:
    with empty_store("sqlite", place) as engine:
        yield Web(engine, place)


def unchanged(engine: Engine) -> bool:
    return twin.twin(engine, "dev1")["desired"] is None


def refused(web: Web, reason: str) -> bool:
    """Whether the log tells of a refusal for this reason."""
    with web.engine.connect() as connection:
        return any(row.outcome == "refused" and reason in row.detail for row, _ in rows(connection))


def role_too_low(place: Path) -> None:
    """Each route that writes, with each role below its own."""
    with web(place) as site:
        tokens = {role: site.token(role.word, role) for role in Role}
        tried = [
            (method, path, role, needed)
            for (method, path), needed in ROLES.items()
            for role in Role
            if method != "GET" and needed is not None and role < needed
        ]
        for method, path, role, needed in tried:
            place_of = re.sub(r"\{\w+\}", "dev1", path)
            bearer = {"authorization": f"Bearer {tokens[role]}"}
            answer = site.ask(method, place_of, headers=bearer, json={"set": {}})
            assert answer.status_code == 403, (method, path, role, answer.text)
            assert f"is {role.word}; this needs {needed.word}" in answer.text
            site.clock.advance(10)
        assert len(tried) >= 10
        assert unchanged(site.engine)
        assert refused(site, "this needs")


def token_row(name: str, told: str, spoil: Callable[[Web, str], str | None]) -> Attack:
    def run(place: Path) -> None:
        with web(place) as site:
            token = site.token("ada", Role.OPERATOR)
            shown = spoil(site, token) or token
            assert site.post(WRITE, shown) in (401, 403)
            assert site.get("/api/v1/audit", shown) in (401, 403)
            assert refused(site, told)
            assert unchanged(site.engine)

    return Attack("access", name, told, run)


def revoke(site: Web, token: str) -> None:
    operators.revoke_token(site.engine, SHELL, token.split("_")[1], 5)


def steal_hash(site: Web, token: str) -> str:
    """What a thief of the database has."""
    with site.engine.connect() as connection:
        kept = connection.exec_driver_sql("SELECT hash FROM token").scalar_one()
    return f"gud_{token.split('_')[1]}_{str(kept)[:43]}"


def narrow(site: Web, token: str) -> str:
    return operators.make_token(site.engine, SHELL, "ada", Role.OPERATOR, 1, ("rollouts",), "", site.clock.wall_ns())[1]


def token_file_from_elsewhere(place: Path) -> None:
    with web(place) as site:
        assert site.post(WRITE, site.file_token, address="192.168.1.9") == 401
        assert refused(site, "counts on this machine only")
        assert unchanged(site.engine)
        assert site.post(WRITE, site.file_token) == 200


def signed_in(site: Web) -> str:
    if operators.operator(site.engine, "ada") is None:
        operators.add(site.engine, SHELL, "ada", Role.OPERATOR, PASSWORD, 5)
    return sessions.begin(site.engine, ADA, site.access.lifetimes, site.clock.wall_ns())


def login(site: Web, password: str, address: str = "127.0.0.1", **more: Any) -> httpx.Response:
    body = {"name": "ada", "password": password}
    return site.ask("POST", "/api/v1/login", address, json=body, headers={CSRF_HEADER: ""}, **more)


def session_fixation(place: Path) -> None:
    with web(place) as site:
        operators.add(site.engine, SHELL, "ada", Role.OPERATOR, PASSWORD, 5)
        planted = "x" * 43
        made = login(site, PASSWORD, cookies={COOKIE: planted}).cookies[COOKIE]
        assert made != planted
        assert site.get("/api/v1/devices", cookies={COOKIE: planted}) == 401
        assert site.get("/api/v1/devices", cookies={COOKIE: made}) == 200


def forged_post(headers: Callable[[str], dict[str, str]]) -> Callable[[Path], None]:
    def run(place: Path) -> None:
        with web(place) as site:
            cookie = signed_in(site)
            assert site.post(WRITE, cookies={COOKIE: cookie}, headers=headers(cookie)) == 401
            assert unchanged(site.engine)
            assert site.post(WRITE, cookies={COOKIE: cookie}, headers={CSRF_HEADER: sessions.csrf_of(cookie)}) == 200

    return run


def stolen_session_hash(place: Path) -> None:
    with web(place) as site:
        signed_in(site)
        with site.engine.connect() as connection:
            kept = str(connection.exec_driver_sql("SELECT hash FROM session").scalar_one())
        assert site.get("/api/v1/devices", cookies={COOKIE: kept}) == 401


def session_of_the_dismissed(place: Path) -> None:
    with web(place) as site:
        cookie = signed_in(site)
        assert site.get("/api/v1/devices", cookies={COOKIE: cookie}) == 200
        operators.change(site.engine, SHELL, "ada", 5, disabled=True)
        assert site.get("/api/v1/devices", cookies={COOKIE: cookie}) == 401


def brute_force(place: Path) -> None:
    """From as many addresses as one likes: ten tries, then one a minute."""
    with web(place) as site:
        operators.add(site.engine, SHELL, "ada", Role.OPERATOR, PASSWORD, 5)
        tried = [login(site, f"guess {n:08}", f"10.0.0.{n}").status_code for n in range(14)]
        assert tried == [401] * 10 + [429] * 4
        assert login(site, PASSWORD, "10.0.1.1").status_code == 429
        assert refused(site, "too many tries")
        site.clock.advance(61)
        assert login(site, PASSWORD).status_code == 200


def rebound_name(place: Path) -> None:
    with web(place) as site:
        answer = site.ask(
            "GET", "/api/v1/devices", headers={"host": "evil.example", "authorization": f"Bearer {site.file_token}"}
        )
        assert answer.status_code == 421


# ── sign-in through a provider ──────────────────────────────────────────────────────────────────────────────────────


def oidc(name: str, told: str, act: Callable[[Site], httpx.Response]) -> Attack:
    def run(place: Path) -> None:
        with running_provider() as provider, empty_store("sqlite", place) as engine:
            site = Site(engine, place, provider)
            answer = act(site)
            assert answer.status_code == 403
            assert told in answer.text, answer.text
            assert COOKIE not in answer.cookies
            assert refused(site, told)

    return Attack("access", name, told, run)


def replayed_nonce(site: Site) -> httpx.Response:
    """An ID token that was made out to an earlier sign-in."""
    first: list[dict[str, Any]] = []
    site.provider.lie = lambda claims: first.append(claims) or claims  # type: ignore[func-returns-value]
    site.ask("GET", site.back_from_provider())
    site.cookies = {}
    site.provider.lie = lambda claims: first[0]
    return site.ask("GET", site.back_from_provider())


def replayed_state(site: Site) -> httpx.Response:
    path = site.back_from_provider()
    assert site.ask("GET", path).status_code == 200
    site.cookies.pop(COOKIE)
    return site.ask("GET", path)


def in_another_browser(site: Site) -> httpx.Response:
    path = site.back_from_provider()
    site.cookies = {}
    return site.ask("GET", path)


def signs(how: str) -> Callable[[Site], httpx.Response]:
    def act(site: Site) -> httpx.Response:
        site.provider.sign = getattr(site.provider, how)
        return site.ask("GET", site.back_from_provider())

    return act


def claims(**changed: Any) -> Callable[[Site], httpx.Response]:
    def act(site: Site) -> httpx.Response:
        site.provider.lie = lambda told: told | changed
        return site.ask("GET", site.back_from_provider())

    return act


COUNTS_NOT = "the provider's ID token does not count"
NO_PAGE = "a page of another site writes in the name of who is signed in"
ROWS: list[Attack] = [
    *(on_the_log(how) for how in TAMPERED),
    *(on_the_archive(how) for how in (*FILES, *STORE)),
    Attack("audit", "store and anchor rolled back together", "the end was cut off", rolled_back_with_its_anchor),
    Attack("audit", "a row edited before it was signed", "row 9 was edited", edited_before_it_was_signed),
    Attack("audit", "an export cut off", "the end was cut off", export_cut_off),
    Attack("access", "a role too low on every route that writes", "this needs", role_too_low),
    token_row("a token that has expired", "has expired", lambda site, _: site.clock.advance(31 * DAY_S)),
    token_row("a token that was revoked", "is revoked", revoke),
    token_row("a token made of its hash in the database", "unknown token", steal_hash),
    token_row("a token outside of its scope", "this token is for rollouts only", narrow),
    Attack("access", "the token file used from another machine", "this machine only", token_file_from_elsewhere),
    Attack("access", "a session planted before sign-in", "a new one", session_fixation),
    Attack("access", NO_PAGE, CSRF_HEADER, forged_post(lambda _: {})),
    Attack("access", NO_PAGE + ", with a guess", CSRF_HEADER, forged_post(lambda _: {CSRF_HEADER: "0" * 64})),
    Attack(
        "access", NO_PAGE + ", with the right token", "a page of another site",
        forged_post(lambda cookie: {CSRF_HEADER: sessions.csrf_of(cookie), "sec-fetch-site": "same-site"}),
    ),
    Attack("access", "the hash of a session used as its cookie", "signed out", stolen_session_hash),
    Attack("access", "the session of an operator who was disabled", "signed out", session_of_the_dismissed),
    Attack("access", "passwords guessed from many addresses", "too many tries", brute_force),
    Attack("access", "a name rebound to this machine", "answers to 127.0.0.1", rebound_name),
    oidc("an ID token replayed (nonce)", COUNTS_NOT, replayed_nonce),
    oidc("the answer of a sign-in replayed (state)", "is over", replayed_state),
    oidc("the answer of a sign-in carried to another browser", "in another browser", in_another_browser),
    oidc("an ID token without a signature", COUNTS_NOT, signs("unsigned")),
    oidc("an ID token signed with the public key", COUNTS_NOT, signs("signed_with_the_public_key")),
    oidc("an ID token for another client", COUNTS_NOT, claims(aud="payroll")),
    oidc("an ID token that has expired", COUNTS_NOT, claims(exp=1)),
]  # fmt: skip
