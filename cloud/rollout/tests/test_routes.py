"""The devices' route over HTTP: what it takes and refuses, and that a fleet behind it goes through a rollout."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from cloud.devices.peer import certified
from cloud.rollout import routes
from cloud.rollout.polling import Pace
from cloud.rollout.tests.made import World, fleet
from edge_runtime.wire.update_status import LIMIT_BYTES, UpdateStatus


@pytest.fixture
def world(sqlite: Engine) -> World:
    return World(sqlite, fleet(11, bad=[7]))


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(routes.router)
    app.state.engine, app.state.registry, app.state.now_ns = world.engine, world.registry, lambda: world.now_ns
    app.state.pace = Pace()
    app.dependency_overrides[certified] = lambda device: device
    with TestClient(app) as opened:
        yield opened


def url(device: str) -> str:
    return f"/device/v1/devices/{device}/update"


def ask_all(client: TestClient, world: World) -> None:
    for device in world.devices.values():
        answer = client.post(url(device.name), content=device.status(world.now_ns).to_json())
        assert answer.status_code == 200, answer.text
        device.take(answer.json()["assignment"])


def test_a_fleet_through_the_route(client: TestClient, world: World) -> None:
    ask_all(client, world)
    world.start(
        groups=[{"name": "canary", "count": 4, "success": 0.5}, {"name": "all", "success": 0.8}], max_in_flight=6
    )
    for _ in range(24):
        world.later(30)
        ask_all(client, world)
        if world.show()["state"] == "finished":
            break
    told = world.show()
    assert (told["state"], told["confirmed"], told["failed"]) == ("finished", 10, 1)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (json.dumps({"v": 2}).encode(), 400),
        (UpdateStatus("dev00001", "b", "x86_64", 1).to_json(), 409),
        (b" " * (LIMIT_BYTES + 1), 413),
    ],
)
def test_what_is_no_status_of_this_device_is_refused(client: TestClient, body: bytes, status: int) -> None:
    assert client.post(url("dev00000"), content=body).status_code == status


def test_without_a_registry_nothing_is_answered(client: TestClient) -> None:
    client.app.state.registry = None  # type: ignore[attr-defined]
    body = UpdateStatus("dev00000", "b", "x86_64", 1).to_json()
    answer = client.post(url("dev00000"), content=body)
    assert (answer.status_code, "no registry" in answer.text) == (503, True)


def test_without_a_certificate_nothing_is_answered(client: TestClient) -> None:
    client.app.dependency_overrides.clear()  # type: ignore[attr-defined]
    body = UpdateStatus("dev00000", "b", "x86_64", 1).to_json()
    assert client.post(url("dev00000"), content=body).status_code == 401
