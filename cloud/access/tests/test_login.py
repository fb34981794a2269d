"""Sign in with a password, and out; and what keeps others from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from cloud.access import operators, sessions, signing_in
from cloud.access.admission import COOKIE, CSRF_HEADER
from cloud.access.roles import Role
from cloud.access.tests.made import PASSWORD, SHELL, WRITE, Web
from cloud.audit.log import rows


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real algorithm, with less work."""
    made = operators.hasher().__class__(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(operators, "hasher", lambda: made)


@pytest.fixture
def web(sqlite: Engine, tmp_path: Path) -> Web:
    web = Web(sqlite, tmp_path)
    operators.add(sqlite, SHELL, "ada", Role.OPERATOR, PASSWORD, 5)
    return web


def login(web: Web, password: str = PASSWORD, name: str = "ada", **more: Any) -> httpx.Response:
    headers = {CSRF_HEADER: ""} | more.pop("headers", {})
    return web.ask("POST", "/api/v1/login", json={"name": name, "password": password}, headers=headers, **more)


def test_who_signs_in_may_read_and_write_until_they_sign_out(web: Web) -> None:
    told = web.ask("GET", "/api/v1/session").json()
    assert told == {"name": None, "role": None, "via": None, "csrf": None, "required": True, "oidc": False}
    answer = login(web)
    assert answer.status_code == 200
    made = answer.headers["set-cookie"]
    assert all(word in made for word in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"))
    assert "Domain" not in made
    cookies = {COOKIE: made.partition(";")[0].partition("=")[2]}
    told = web.ask("GET", "/api/v1/session", cookies=cookies).json()
    assert (told["name"], told["role"], told["via"]) == ("ada", "operator", "session")
    right = {CSRF_HEADER: told["csrf"]}
    assert web.post(WRITE, cookies=cookies, headers=right) == 200
    assert web.ask("POST", "/api/v1/logout", cookies=cookies).status_code == 401
    assert web.ask("POST", "/api/v1/logout", cookies=cookies, headers=right).status_code == 204
    assert web.get("/api/v1/devices", cookies=cookies) == 401
    with web.engine.connect() as connection:
        actions = [(row.action, row.outcome) for row, _ in rows(connection)]
    assert actions[1:] == [
        ("session.begin", "done"),
        ("desired.change", "done"),
        ("request.refuse", "refused"),
        ("session.end", "done"),
    ]


def test_a_session_is_never_the_one_that_was_brought(web: Web) -> None:
    brought = "planted" * 6
    answer = login(web, cookies={COOKIE: brought})
    made = answer.headers["set-cookie"].partition(";")[0].partition("=")[2]
    assert made != brought
    assert web.get("/api/v1/devices", cookies={COOKIE: brought}) == 401
    again = login(web, cookies={COOKIE: made}).headers["set-cookie"].partition(";")[0].partition("=")[2]
    assert web.get("/api/v1/devices", cookies={COOKIE: made}) == 401
    assert web.get("/api/v1/devices", cookies={COOKIE: again}) == 200


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ada", ""),
        ("ada", PASSWORD + "x"),
        ("bob", PASSWORD),
        ("Ada", PASSWORD),
        ("", ""),
        ("tokens", ""),
        ("off", PASSWORD),
    ],
)
def test_what_does_not_fit_is_refused_in_the_same_words(web: Web, name: str, password: str) -> None:
    operators.add(web.engine, SHELL, "tokens", Role.ADMIN, None, 5)
    operators.add(web.engine, SHELL, "off", Role.ADMIN, PASSWORD, 5)
    operators.change(web.engine, SHELL, "off", 5, disabled=True)
    answer = login(web, password, name)
    assert (answer.status_code, answer.json()) == (401, {"detail": "name and password do not fit"})
    assert "set-cookie" not in answer.headers


def test_a_page_of_another_site_cannot_sign_anybody_in(web: Web) -> None:
    assert login(web, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    plain = web.ask("POST", "/api/v1/login", json={"name": "ada", "password": PASSWORD})
    assert plain.status_code == 403
    assert CSRF_HEADER in plain.json()["detail"]


def test_guessing_is_slow_for_each_account(web: Web) -> None:
    tried = [login(web, "wrong wrong wrong", address=f"10.0.0.{n}").status_code for n in range(15)]
    assert tried == [401] * 10 + [429] * 5
    assert login(web).status_code == 429
    assert login(web, name="bob").status_code == 401
    web.clock.advance(61)
    assert login(web).status_code == 200


def test_guessing_is_slow_from_each_address(web: Web) -> None:
    tried = [login(web, "x", name=f"n{n}", address="10.0.0.7").status_code for n in range(25)]
    assert tried == [401] * 20 + [429] * 5
    answer = login(web, address="10.0.0.7")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
    assert login(web, address="10.0.0.8").status_code == 200


def test_few_passwords_are_tried_at_the_same_time(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing_in, "WAIT_S", 0.01)
    free = web.app.state.passwords._free
    for _ in range(signing_in.AT_ONCE):
        free.acquire()
    assert login(web).status_code == 429
    free.release()
    assert login(web).status_code == 200


def test_a_long_body_is_not_read(web: Web) -> None:
    assert login(web, "x" * 10_000).status_code == 413
    assert login(web, "x" * 1001).status_code == 422


def test_sessions_that_are_over_are_cleared_away(web: Web) -> None:
    login(web)
    web.clock.advance(13 * 3600)
    login(web)
    with web.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM session").scalar_one() == 1


def test_passwords_are_kept_as_argon2id(sqlite: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    operators.add(sqlite, SHELL, "ada", Role.VIEWER, PASSWORD, 5)
    row = operators.operator(sqlite, "ada")
    assert row is not None
    assert row["password_hash"].startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert operators.password_fits(row, PASSWORD)
    with pytest.raises(ValueError, match="12 to 200 characters, this one has 5"):
        operators.change(sqlite, SHELL, "ada", 5, password="short")


def test_the_csrf_token_tells_nothing_of_the_cookie() -> None:
    assert sessions.csrf_of("a") != sessions.csrf_of("b")
    assert len(sessions.csrf_of("a")) == 64


def test_no_secret_is_in_the_log_nor_in_the_audit_log(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    """Right or wrong, in whatever place it came."""
    caplog.set_level(1)
    token = web.token("robot", Role.ADMIN)
    wrong, query = "gud_0123456789ab_" + "w" * 43, "in-a-question-by-mistake"
    assert web.get("/api/v1/devices", token) == 200
    assert web.get("/api/v1/devices", wrong) == 401
    assert web.post("/api/v1/rollouts", token, json={"token": query}) == 422
    assert web.get(f"/api/v1/devices?token={query}", wrong) == 401
    answer = login(web)
    assert answer.status_code == 200
    assert login(web, "wrong password of ada").status_code == 401
    with web.engine.connect() as connection:
        audited = str([row for row, _ in rows(connection)])
    secrets = (token, wrong, query, PASSWORD, "wrong password of ada", answer.cookies[COOKIE], web.file_token)
    logged = [str(vars(record)) for record in caplog.records if not record.name.startswith("http")]  # the client's own
    for place in ("\n".join(logged), audited):
        assert [secret for secret in secrets if secret in place] == []
