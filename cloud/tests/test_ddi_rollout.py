"""An update client in a rollout: offered when its group opens, counted when it says that it has installed, canceled on abort."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from cloud.ddi import store as ddi_store
from cloud.ddi.routes import router
from cloud.ddi.service import make_ddi
from cloud.rollout import clock, fleet, store
from cloud.rollout.offer import Artifact
from cloud.rollout.plan import read_plan
from cloud.rollout.registry import InMemory, MemoryRegistry
from cloud.rollout.shown import show
from cloud.settings import DdiSection

S_NS = 10**9
IMAGE = b"image" * 1000
SHA256 = hashlib.sha256(IMAGE).hexdigest()
TARGET = "os/press/2.swu"


class World:
    def __init__(self, engine: Engine, folder: Path, enough: str = "installed") -> None:
        self.engine, self.now_ns = engine, 1_780_000_000 * S_NS
        self.registry = MemoryRegistry(lambda data: b"s" * 64, {TARGET: InMemory(SHA256, 2, ("press",))})
        file = folder / "repo/targets/os/press" / f"{SHA256}.2.swu"
        file.parent.mkdir(parents=True)
        file.write_bytes(IMAGE)
        ddi = make_ddi(engine, DdiSection(serve=True), self.registry, folder, lambda: self.now_ns)
        app = FastAPI()
        app.state.ddi = ddi
        app.include_router(router)
        with ddi.writing() as connection:
            token = ddi_store.make_token(connection, "press-1", 1)
        self.home = "/DEFAULT/controller/v1/press-1"
        self.client = TestClient(app, headers={"authorization": f"TargetToken {token}"})
        self.client.put(f"{self.home}/configData", json={"data": {"hardware": "press"}})
        self.links()
        plan = read_plan({"groups": [{"name": "all"}], "enough": enough})
        asked = store.Asked("r-1", "os", Artifact(TARGET, SHA256, 2, ("press",)), plan)
        store.create(engine, asked, "anna", self.now_ns)
        store.start(engine, "r-1", "anna", self.now_ns)
        self.later(1)

    def later(self, seconds: float) -> None:
        self.now_ns += round(seconds * S_NS)
        clock.advance(self.engine, self.now_ns, self.registry)

    def links(self) -> dict[str, str]:
        return {
            k: v["href"]
            for k, v in self.client.get(self.home).json()["_links"].items()
            if k not in ("configData", "installedBase")
        }

    def say(self, href: str, execution: str, finished: str = "none") -> None:
        status = {"execution": execution, "result": {"finished": finished}}
        assert self.client.post(f"{href}/feedback", json={"status": status}).status_code == 200

    def show(self) -> dict[str, Any]:
        return show(self.engine, "r-1", self.now_ns)


def test_installed_is_enough_where_the_rollout_says_so(engine: Engine, tmp_path: Path) -> None:
    world = World(engine, tmp_path)
    href = world.links()["deploymentBase"]
    chunk = world.client.get(href).json()["deployment"]["chunks"][0]
    assert world.client.get(chunk["artifacts"][0]["_links"]["download-http"]["href"]).content == IMAGE
    world.say(href, "proceeding")
    assert world.show()["confirmed"] == 0
    world.say(href, "closed", "success")
    world.later(1)
    assert (world.show()["state"], world.show()["confirmed"], world.show()["failed"]) == ("finished", 1, 0)
    slot = (fleet.device(engine, "press-1") or {})["slots"]["os"]
    assert (slot["installed"], slot["running"], slot["confirmed"]) == (SHA256, "", "")
    assert world.links() == {}


def test_installed_is_not_confirmed(sqlite: Engine, tmp_path: Path) -> None:
    world = World(sqlite, tmp_path, enough="confirmed")
    world.say(world.links()["deploymentBase"], "closed", "success")
    world.later(1)
    assert (world.show()["state"], world.show()["confirmed"]) == ("running", 0)


@pytest.mark.parametrize("ending", ["closed", "canceled"])
def test_an_abort_cancels(sqlite: Engine, tmp_path: Path, ending: str) -> None:
    world = World(sqlite, tmp_path)
    world.say(world.links()["deploymentBase"], "proceeding")
    store.abort(world.engine, "r-1", "anna", world.now_ns)
    world.later(1)
    cancel = world.links()["cancelAction"]
    world.say(cancel, ending, "success")
    assert world.links() == {}


def test_a_failure_is_one_of_the_rollout(sqlite: Engine, tmp_path: Path) -> None:
    world = World(sqlite, tmp_path)
    world.say(world.links()["deploymentBase"], "closed", "failure")
    assert world.links() == {}, "not at once"
    world.later(1000)
    world.links()
    assert "deploymentBase" in world.links(), "tried again after a pause"
