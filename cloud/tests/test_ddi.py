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
from cloud.store import tables as t
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
        return {
            name: link["href"]
            for name, link in answer.json()["_links"].items()
            if name not in ("configData", "installedBase")
        }

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
    assert rig.client.get(href).json()["id"] == document["id"]
    assert rig.client.get(HOME).json()["_links"]["installedBase"]["href"] == href.replace(
        "deploymentBase", "installedBase"
    )
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
        if state not in ACTIVE and (state, event) != (State.CANCELED, Input.SUCCEED):
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


# ── what the clients that there are do ──────────────────────────────────────────────────────────────────────────────


def test_a_client_that_knows_of_no_cancel_action_is_not_waited_for_for_ever(rig: Rig) -> None:
    """rauc-hawkbit-updater up to 1.2 passes over the link."""
    first = rig.links()["deploymentBase"]
    rig.item = replace(ITEM, rollout="r-2", sha256="0" * 64)
    assert set(rig.links()) == {"cancelAction"}
    rig.now_ns += store.CANCEL_NS - 1
    assert set(rig.links()) == {"cancelAction"}
    rig.now_ns += 2
    rig.item = ITEM
    second = rig.links()["deploymentBase"]
    assert second != first
    assert rig.say(first, "closed", "success").status_code == 200, "it had not stopped: what it runs is what counts"
    assert rig.told[-1].installed == SHA256


def test_what_has_ended_takes_no_other_word(rig: Rig) -> None:
    href = rig.links()["deploymentBase"]
    for _ in range(2):
        assert rig.say(href, "closed", "failure", "first").status_code == 200, "the answer to the first was lost"
    for execution, finished in (("proceeding", "none"), ("closed", "success")):
        assert rig.say(href, execution, finished, "later").status_code == 410
    assert rig.told[-1].reason == "first"


def test_what_rauc_hawkbit_updater_sends_and_reads(rig: Rig) -> None:
    """Its attributes come in the shape of a feedback; it reads `name`, `version`, `size`, `hashes.sha1` and a link."""
    body = {"time": "20261125T120000", "status": {"result": {"finished": "success"}, "execution": "closed"}}
    assert rig.client.put(f"{HOME}/configData", json=body | {"data": {"product": "press"}}).status_code == 200
    assert set(rig.client.get(HOME).json()["_links"]) == {"deploymentBase"}
    document = rig.client.get(rig.links()["deploymentBase"]).json()
    assert isinstance(document["id"], str)
    chunk = document["deployment"]["chunks"][0]
    artifact = chunk["artifacts"][0]
    assert (chunk["name"], chunk["version"], artifact["size"]) == ("press", "2.0.1", len(IMAGE))
    feedback = f"{HOME}/deploymentBase/{document['id']}/feedback"  # it makes this address itself
    for execution, finished in (("proceeding", "none"), ("closed", "success")):
        status = {"result": {"finished": finished}, "execution": execution, "details": ["File checksum OK."]}
        answer = rig.client.post(feedback, json={"id": document["id"], "time": "20261125T120000", "status": status})
        assert answer.status_code == 200, "it takes nothing else for success"


@pytest.mark.parametrize("scheme", ["TargetToken", "GatewayToken", "certificate"])
def test_nothing_speaks_for_a_device_that_was_revoked(rig: Rig, scheme: str) -> None:
    headers = {
        "TargetToken": {},
        "GatewayToken": {"authorization": "GatewayToken " + "g" * 43},
        "certificate": {"authorization": "", "x-test-certificate": "press-1"},
    }[scheme]
    assert rig.client.get(HOME, headers=headers).status_code == 200
    with rig.ddi.writing() as connection:
        values = {"device": "press-1", "hardware": "serial:1", "revoked_ns": 5, "reason": "stolen", "since_ns": 1}
        connection.execute(t.identity.insert().values(**values))
    assert rig.client.get(HOME, headers=headers).status_code == 401


def test_an_image_is_read_once_for_a_fleet(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.links()
    read = store.image_of(rig.folder / "image")
    monkeypatch.setattr(hashlib, "sha256", None)
    assert store.image_of(rig.folder / "image") is read


@pytest.mark.parametrize("range_", ["bytes=99999999-", "bytes=5-2", "lines=1-2"])
def test_a_range_that_is_none_is_told(rig: Rig, range_: str) -> None:
    document = rig.client.get(rig.links()["deploymentBase"]).json()
    href = document["deployment"]["chunks"][0]["artifacts"][0]["_links"]["download"]["href"]
    assert rig.client.get(href, headers={"range": range_}).status_code in (200, 400, 416)
