"""The page to sign in, in real headless Chromium, and the pages behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud.access import operators
from cloud.access.roles import Role
from cloud.access.tests.made import PASSWORD, SHELL
from cloud.settings import AccessSection
from cloud.store.opening import open_store
from cloud.tests.browser import browser, missing
from cloud.tests.test_page import cloud

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.timeout(180)]

ENTER = """document.getElementById('name').value = 'ada'; document.getElementById('password').value = '%s';
document.getElementById('login').requestSubmit()"""
WRITE = """window.told = ''; gudgeon.send('POST', '/api/v1/devices/dev1/desired', {set: {metered: true}})
.then((found) => { window.told = JSON.stringify(found.desired.state); }, (error) => { window.told = error.message; })"""
FORGED = """window.told = ''; fetch('/api/v1/devices/dev1/desired', {method: 'POST', body: '{"set": {}}'})
.then((answer) => { window.told = String(answer.status); })"""


def test_signing_in_and_out(tmp_path: Path) -> None:
    engine = open_store(f"sqlite:///{tmp_path / 'c.db'}")
    operators.add(engine, SHELL, "ada", Role.OPERATOR, PASSWORD, 5)
    engine.dispose()
    with cloud(tmp_path, access=AccessSection(required=True)) as (port, _), browser() as page:
        page.open(f"http://127.0.0.1:{port}/assets")
        page.wait("location.pathname === '/login' && document.getElementById('login')")
        assert page.run("return location.search") == "?next=%2Fassets"
        page.run(ENTER % "wrong wrong wrong")
        page.wait("document.getElementById('told').textContent === 'name and password do not fit'")
        assert page.run("return document.getElementById('password').value") == ""
        page.run(ENTER % PASSWORD)
        page.wait("location.pathname === '/assets' && document.querySelector('#session button')")
        page.wait("document.getElementById('connection').textContent === 'live'")
        assert page.text("session") == "ada (operator) sign out"
        assert page.run("return document.cookie") == ""
        page.run(FORGED)
        page.wait("window.told === '401'")
        page.run(WRITE)
        page.wait("window.told === '{\"metered\":true}'")
        page.open(f"http://127.0.0.1:{port}/")
        page.wait("document.getElementById('connection').textContent === 'live'")
        page.run("document.querySelector('#session button').click()")
        page.wait("location.pathname === '/login'")
        page.open(f"http://127.0.0.1:{port}/login?next=https://elsewhere.example/")
        page.wait("document.getElementById('login')")
        page.run(ENTER % PASSWORD)
        page.wait("location.pathname === '/'")
        assert page.run("return location.hostname") == "127.0.0.1"
        assert [line for line in page.console() if "Content Security Policy" in line] == []


def test_without_required_identities_the_pages_are_open(tmp_path: Path) -> None:
    with cloud(tmp_path) as (port, _), browser() as page:
        page.open(f"http://127.0.0.1:{port}/")
        page.wait("document.getElementById('connection').textContent === 'live'")
        page.wait("document.querySelector('#session a')")
        assert page.text("session") == "sign in"
        assert page.console() == []
