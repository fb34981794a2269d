"""The DDI routes: what an update client asks and says, and what a rollout hears of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from cloud import devices_cli
from cloud.ddi import documents, store
from cloud.ddi.actions import ACTIVE, TABLE, Input, State, heard
from cloud.ddi.routes import BODY_LIMIT_BYTES, Ddi, router
from cloud.settings import load_cloud
from cloud.store.opening import open_store
from edge_runtime.errors import GudgeonError
from edge_runtime.machine import step
from edge_runtime.wire.assignment import Item
from edge_runtime.wire.update_status import SlotStatus, UpdateState, UpdateStatus

IMAGE = bytes(range(256)) * 100
SHA256 = hashlib.sha256(IMAGE).hexdigest()
ITEM = Item("os/press/2.0.1.swu", SHA256, "r-1")
HOME = "/DEFAULT/controller/v1/press-1"


@dataclass
class Rig:
    """A client of device press-1, what is wanted of it, and what was told of it."""

    engine: Engine
    folder: Path
    item: Item | None = ITEM
    counter: int = 7
    now_ns: int = 1000
    told: list[SlotStatus] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "image").write_bytes(IMAGE)
        self.ddi = Ddi(
            self.engine, self._ask, lambda item: self.folder / "image" if item.target == ITEM.target else None,
            lambda request, device: request.headers.get("x-test-certificate") == device, poll_s=90, gateway_token="g" * 43,
            now_ns=lambda: self.now_ns,
        )  # fmt: skip
        app = FastAPI()
        app.state.ddi = self.ddi
        app.include_router(router)
        with self.ddi.writing() as connection:
            token = store.make_token(connection, "press-1", 1)
        self.client = TestClient(app, base_url="https://cloud.test", headers={"authorization": f"TargetToken {token}"})

    def _ask(self, status: UpdateStatus) -> tuple[int, Item | None]:
        self.told.append(status.slots["os"])
        return self.counter, self.item if status.device == "press-1" else None

    def links(self) -> dict[str, str]:
        answer = self.client.get(HOME)
        assert answer.status_code == 200, answer.text
        return {name: link["href"] for name, link in answer.json()["_links"].items() if name != "configData"}

    def say(self, href: str, execution: str, finished: str = "none", *details: str) -> Any:
        status = {"execution": execution, "result": {"finished": finished}, "details": list(details)}
        return self.client.post(f"{href}/feedback", json={"id": "1", "time": "20261125T120000", "status": status})


@pytest.fixture
def rig(engine: Engine, tmp_path: Path) -> Rig:
    return Rig(engine, tmp_path)


def test_from_the_offer_to_installed_and_never_confirmed(rig: Rig) -> None:
    base = rig.client.get(HOME).json()
    assert base["config"] == {"polling": {"sleep": "00:01:30"}}
    assert set(base["_links"]) == {"deploymentBase", "configData"}
    href = base["_links"]["deploymentBase"]["href"]
    document = rig.client.get(href).json()
    chunk = document["deployment"]["chunks"][0]
    artifact = chunk["artifacts"][0]
    assert (chunk["name"], chunk["version"], artifact["filename"]) == ("press", "2.0.1", "press-2.0.1.swu")
    assert artifact["hashes"]["sha1"] == hashlib.sha1(IMAGE).hexdigest()
    assert artifact["size"] == len(IMAGE)
    fetched = rig.client.get(artifact["_links"]["download"]["href"])
    assert fetched.content == IMAGE
    assert rig.client.get(artifact["_links"]["md5sum"]["href"]).text.split()[0] == hashlib.md5(IMAGE).hexdigest()
    rig.say(href, "proceeding")
    assert rig.say(href, "closed", "success").status_code == 200
    assert [s.state for s in rig.told] == [UpdateState.IDLE, UpdateState.DOWNLOADING, UpdateState.STAGED]
    last = rig.told[-1]
    assert (last.installed, last.running, last.confirmed, last.rollout) == (SHA256, "", "", "r-1")
    assert last.counter == 7
    assert rig.links() == {}
    assert rig.client.get(href).status_code == 410
    assert rig.client.get(href.replace("deploymentBase", "installedBase")).json()["id"] == document["id"]


def test_a_file_in_parts(rig: Rig) -> None:
    href = rig.client.get(rig.links()["deploymentBase"]).json()["deployment"]["chunks"][0]["artifacts"][0]["_links"][
        "download"
    ]["href"]
    first = rig.client.get(href, headers={"range": "bytes=0-99"})
    rest = rig.client.get(href, headers={"range": "bytes=100-", "if-range": first.headers["etag"]})
    assert (first.status_code, rest.status_code) == (206, 206)
    assert first.content + rest.content == IMAGE
    assert rig.client.get(href, headers={"range": "bytes=100-", "if-range": '"other"'}).content == IMAGE


def test_what_failed_is_not_offered_again_until_something_else_is_wanted(rig: Rig) -> None:
    rig.say(rig.links()["deploymentBase"], "closed", "failure", "no space", "gave up")
    assert rig.told[-1].state is UpdateState.REFUSED
    assert rig.told[-1].reason == "no space; gave up"
    assert rig.links() == {}
    rig.item = replace(ITEM, rollout="r-2")
    assert rig.links() == {}
    rig.counter = 8
    assert "deploymentBase" in rig.links()


def test_another_assignment_of_the_same_file_changes_nothing_but_is_heard(rig: Rig) -> None:
    href = rig.links()["deploymentBase"]
    rig.item, rig.counter = replace(ITEM, rollout="r-2"), 9
    assert rig.links() == {"deploymentBase": href}
    rig.say(href, "closed", "success")
    rig.item, rig.counter = replace(ITEM, rollout="r-3"), 10
    assert rig.links() == {}
    rig.links()
    assert (rig.told[-1].rollout, rig.told[-1].counter, rig.told[-1].state) == ("r-3", 10, UpdateState.STAGED)


def test_what_is_wanted_no_more_is_canceled_before_the_next_is_offered(rig: Rig) -> None:
    first = rig.links()["deploymentBase"]
    rig.item = replace(ITEM, target="os/press/2.0.2.swu")
    cancel = rig.links()["cancelAction"]
    assert rig.client.get(cancel).json() == {"id": cancel[-1], "cancelAction": {"stopId": first[-1]}}
    rig.say(cancel, "closed", "success")
    rig.item = ITEM
    assert rig.links()["deploymentBase"] != first


def test_a_device_that_will_not_stop_goes_on(rig: Rig) -> None:
    deployment = rig.links()["deploymentBase"]
    rig.say(deployment, "proceeding")
    rig.item = None
    rig.say(rig.links()["cancelAction"], "rejected")
    assert "deploymentBase" in rig.links()
    rig.say(deployment, "closed", "success")
    assert rig.told[-1].installed == SHA256


def test_a_paused_rollout_offers_nothing_and_stops_nothing(rig: Rig) -> None:
    rig.item = replace(ITEM, go="stage")
    assert rig.links() == {}
    rig.item = ITEM
    href = rig.links()["deploymentBase"]
    rig.item = replace(ITEM, go="stage")
    assert rig.links() == {}
    rig.item = ITEM
    rig.say(href, "proceeding")
    rig.item = replace(ITEM, go="stage")
    assert rig.links() == {"deploymentBase": href}


def test_a_file_that_is_not_what_was_signed_is_not_offered(rig: Rig) -> None:
    (rig.folder / "image").write_bytes(IMAGE + b"x")
    assert rig.links() == {}


def test_attributes(rig: Rig) -> None:
    put = rig.client.put
    assert put(f"{HOME}/configData", json={"mode": "merge", "data": {"hw": "1.0", "os": "12"}}).status_code == 200
    assert set(rig.client.get(HOME).json()["_links"]) == {"deploymentBase"}
    put(f"{HOME}/configData", json={"mode": "remove", "data": {"os": ""}})
    with rig.engine.connect() as connection:
        assert store.attributes(connection, "press-1") == {"hw": "1.0"}
    assert put(f"{HOME}/configData", json={"mode": "add", "data": {}}).status_code == 400
    assert put(f"{HOME}/configData", json={"data": {"a": 1}}).status_code == 400
    assert put(f"{HOME}/configData", json={"data": {str(i): "" for i in range(101)}}).status_code == 400


@pytest.mark.parametrize(
    ("path", "headers", "code"),
    [
        (HOME, {"authorization": "TargetToken wrong"}, 401), (HOME, {"authorization": ""}, 401),
        (HOME, {"authorization": "GatewayToken " + "g" * 43}, 200), (HOME, {"authorization": "GatewayToken g"}, 401),
        (HOME, {"authorization": "", "x-test-certificate": "press-1"}, 200),
        (HOME, {"authorization": "", "x-test-certificate": "press-2"}, 401),
        ("/DEFAULT/controller/v1/press-2", {}, 401), ("/OTHER/controller/v1/press-1", {}, 404),
        (f"{HOME}/deploymentBase/99", {}, 404), (f"{HOME}/cancelAction/1", {}, 404), (f"{HOME}/deploymentBase/{2**40}", {}, 404),
        (f"{HOME}/softwaremodules/1/artifacts/..%2Fcloud.db", {}, 404),
        (f"{HOME}/softwaremodules/1/artifacts/other.swu", {}, 404),
    ],
)  # fmt: skip
def test_who_may_ask_for_what(rig: Rig, path: str, headers: dict[str, str], code: int) -> None:
    rig.links()
    assert rig.client.get(path, headers=headers).status_code == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", 400), (b"[]", 400), (b"{}", 400), (b'{"status": {"execution": "closed"}}', 400),
        (b" " * (BODY_LIMIT_BYTES + 1), 413),
        (b'{"status": {"execution": "blown", "result": {"finished": "up"}}}', 400), (b"[" * 60000, 400),
    ],
)  # fmt: skip
def test_a_feedback_that_is_not_one(rig: Rig, body: bytes, code: int) -> None:
    href = rig.links()["deploymentBase"]
    assert rig.client.post(f"{href}/feedback", content=body).status_code == code
    assert rig.links() == {"deploymentBase": href}


def test_a_token_that_was_made_anew_or_dropped_holds_no_longer(rig: Rig) -> None:
    with rig.engine.begin() as connection:
        store.make_token(connection, "press-1", 2)
    assert rig.client.get(HOME).status_code == 401
    with rig.engine.begin() as connection:
        assert store.drop_token(connection, "press-1")
        assert not store.drop_token(connection, "press-1")


@pytest.mark.parametrize("state", State)
def test_what_has_ended_stays_so(state: State) -> None:
    for event in Input:
        if state not in ACTIVE:
            assert step(TABLE, state, event) is state
    assert {after for (before, _), after in TABLE.items()} == set(State) - {State.OPEN}


def test_every_word_of_the_protocol_is_understood() -> None:
    words: list[tuple[str, str]] = [
        (e, "none") for e in ("proceeding", "scheduled", "resumed", "download", "downloaded", "rejected")
    ]
    assert all(heard(e, f, of_cancel=False) for e, f in words)
    assert heard("closed", "none", of_cancel=False) is Input.SUCCEED
    assert heard("proceeding", "none", of_cancel=True) is None
    with pytest.raises(ValueError, match="not of the protocol"):
        heard("closed", "well", of_cancel=True)


def test_links_follow_the_way_the_client_came(rig: Rig) -> None:
    rig.links()
    with rig.engine.connect() as connection:
        action: Any = store.newest_action(connection, "press-1")
    plain = documents.artifacts("http://cloud/x", action)[0]["_links"]
    assert set(plain) == {"download-http", "md5sum-http"}
    assert [documents.sleep_text(s) for s in (0, 90, 10**6)] == ["00:00:01", "00:01:30", "23:59:59"]


def test_the_command_makes_and_drops_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "cloud.toml"
    config.write_text("")
    assert devices_cli.main(["ddi-token", "press-1", "--config", str(config), "--json"]) == 0
    token = json.loads(capsys.readouterr().out)["token"]
    store_engine = open_store(load_cloud(config).store.address)
    with store_engine.connect() as connection:
        assert store.token_fits(connection, "press-1", token)
    store_engine.dispose()
    drop = ["ddi-token", "press-1", "--config", str(config), "--drop"]
    assert devices_cli.main(drop) == 0
    with pytest.raises(GudgeonError, match="has no token"):
        devices_cli.main(drop)
