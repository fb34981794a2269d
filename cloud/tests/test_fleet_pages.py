"""The pages of fleet, rollouts and audit log in real headless Chromium, over simulated devices in a real rollout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cloud.access import operators
from cloud.access.roles import Actor, Role
from cloud.rollout import fleet as stored_fleet
from cloud.rollout import store
from cloud.rollout.tests.made import NEWER_TARGET, World, fleet
from cloud.store.opening import open_store
from cloud.tests.browser import Browser, browser, missing
from cloud.tests.test_page import cloud

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.timeout(180)]

PASSWORD = "correct horse battery"
HERE = Actor("setup", Role.ADMIN, "command", "")
HOSTILE = "<img src=x onerror=\"document.title='broken'\">"
TWO = [{"name": "canary", "count": 2}, {"name": "all"}]


def now_is_now(world: World) -> World:
    import time

    world.now_ns = time.time_ns()
    return world


def sign_in(page: Browser, port: int, name: str, onward: str) -> None:
    page.open(f"http://127.0.0.1:{port}/login?next={onward}")
    page.wait("document.getElementById('enter')")
    page.run(
        f"document.getElementById('name').value = '{name}'; document.getElementById('password').value = '{PASSWORD}'"
    )
    page.run("document.getElementById('login').requestSubmit()")
    page.wait(f"location.pathname === '{onward}'")
    page.wait("document.getElementById('connection').textContent === 'live'")


def add(engine: Engine, name: str, role: Role) -> None:
    operators.add(engine, HERE, name, role, PASSWORD, 1)


def cells(page: Browser, table: str) -> list[list[str]]:
    script = (
        f"return [...document.getElementById('{table}').rows].map((r) => [...r.cells].map((c) => c.innerText.trim()))"
    )
    found: list[list[str]] = page.run(script)
    return found


def press(page: Browser, button: str) -> None:
    page.wait(f"document.getElementById('{button}')")
    page.run(f"document.getElementById('{button}').click()")


@pytest.fixture
def world_in(tmp_path: Path) -> Callable[[int], World]:
    def made(count: int) -> World:
        world = now_is_now(World(open_store(f"sqlite:///{tmp_path / 'c.db'}"), fleet(count, bad=[0])))
        world.poll()
        return world

    return made


def test_a_rollout_as_it_goes_and_an_operator_who_stops_it(tmp_path: Path, world_in: Callable[[int], World]) -> None:
    with cloud(tmp_path) as (port, _), browser() as page:
        world = world_in(6)
        add(world.engine, "anna", Role.RELEASER)
        world.start("r1", groups=TWO, abort={"count": 3, "executed": 100})
        world.create("r2", target=NEWER_TARGET, groups=[{"name": "all"}])
        sign_in(page, port, "anna", "/rollouts")
        page.wait("document.getElementById('rollouts').rows.length === 2")
        page.run("[...document.querySelectorAll('#rollouts button')].find((b) => b.textContent === 'r1').click()")
        page.wait("document.getElementById('chosen-title').textContent === 'r1: running'")
        assert [row[0] for row in cells(page, "groups")] == ["canary", "all"]

        world.later(1)
        world.poll()
        page.wait("document.querySelectorAll('#groups [data-kind=busy]').length > 0")
        world.run(3)
        page.wait("[...document.querySelectorAll('#parts tr')].length === 6")

        press(page, "pause")
        page.wait("document.getElementById('chosen-title').textContent === 'r1: paused'")
        press(page, "resume")
        page.wait("document.getElementById('chosen-title').textContent === 'r1: running'")
        press(page, "abort")
        page.wait("document.getElementById('chosen-title').textContent.startsWith('r1: abort')")
        assert page.text("told") == ""

        page.open(f"http://127.0.0.1:{port}/audit")
        page.wait("document.querySelectorAll('#rows tr').length >= 4")
        done = [(row[2].split()[0], row[4]) for row in cells(page, "rows") if row[4].startswith("rollout.")]
        assert done == [("anna", "rollout.abort"), ("anna", "rollout.resume"), ("anna", "rollout.pause")]
        press(page, "verify")
        page.wait("document.getElementById('told').textContent.startsWith('whole')")
        assert page.console() == []
        world.engine.dispose()


def test_a_viewer_sees_and_may_not_act(tmp_path: Path, world_in: Callable[[int], World]) -> None:
    with cloud(tmp_path) as (port, _), browser() as page:
        world = world_in(2)
        add(world.engine, "vera", Role.VIEWER)
        world.start("r1", groups=TWO)
        sign_in(page, port, "vera", "/rollouts")
        page.wait("document.getElementById('groups').rows.length === 2")
        assert page.text("actions") == ""
        world.engine.dispose()


def test_the_fleet_with_its_slots_twin_and_history(tmp_path: Path, world_in: Callable[[int], World]) -> None:
    with cloud(tmp_path) as (port, _), browser() as page:
        world = world_in(3)
        with stored_fleet.writing(world.engine).begin() as connection:
            stored_fleet.set_tags(connection, "dev00001", {"line": "7", "note": "x"}, [], world.now_ns)
        world.start("r1", groups=[{"name": "all"}], abort={"executed": 100})
        world.run(6)
        page.open(f"http://127.0.0.1:{port}/fleet")
        page.wait("document.getElementById('devices').rows.length === 3")
        page.wait("document.getElementById('connection').textContent === 'live'")
        updates = {row[0]: row[6] for row in cells(page, "devices")}
        assert updates["dev00000"] == "default: rolled back"
        assert updates["dev00001"] == "default: confirmed"
        page.run("[...document.querySelectorAll('#devices button')].find((b) => b.textContent === 'dev00001').click()")
        page.wait("document.getElementById('slots').innerText.includes('default')")
        slot = cells(page, "slots")[0]
        assert (slot[0], slot[1], slot[4], slot[5]) == ("default", "confirmed", "b" * 12, "b" * 12)
        page.wait("document.getElementById('history').innerText.includes('r1')")

        page.run("document.getElementById('where').value = 'line=7'; document.getElementById('filter').requestSubmit()")
        page.wait("document.getElementById('devices').rows.length === 1")
        assert "line=7" in cells(page, "devices")[0][3]
        assert page.console() == []
        world.engine.dispose()


def test_what_devices_tell_is_text(tmp_path: Path, world_in: Callable[[int], World]) -> None:
    with cloud(tmp_path) as (port, _), browser() as page:
        world = world_in(2)
        world.start("r1", groups=[{"name": "all"}])
        store.abort(world.engine, "r1", HOSTILE, world.now_ns)
        page.open(f"http://127.0.0.1:{port}/rollouts?rollout=r1")
        page.wait("document.getElementById('why').textContent.includes('img')")
        assert page.run("return document.querySelectorAll('main img').length") == 0
        assert page.run("return document.title") == "Gudgeon – rollouts"
        world.engine.dispose()
