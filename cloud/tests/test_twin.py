"""What a device is asked to be and to do: the store, the API with its token, and the way over a real broker."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from sqlalchemy import Engine

from cloud import device_cli
from cloud.api.bodies import BODY_LIMIT_BYTES
from cloud.app import make_app
from cloud.bearer import allowed, load_or_make
from cloud.broker import EmbeddedBroker
from cloud.dispatch import Dispatch
from cloud.main import WebServer
from cloud.messages import Status
from cloud.settings import CloudSettings, StoreSection
from cloud.sockets import listen, port_of
from cloud.store import twin
from cloud.tests.databases import commit
from cloud.tests.made import PLACE, WAIT_S, batch, event, until
from cloud.tests.test_api import with_app
from edge_runtime.errors import EndpointError, GudgeonError, ResourceError, UsageError
from edge_runtime.identity import load_or_make as load_key
from edge_runtime.wire.command import read_command
from edge_runtime.wire.desired import Refusal, Reported, read_desired
from edge_runtime.wire.signed import signed_bytes, unseal

KEY = Ed25519PrivateKey.generate()
S = 1_000_000_000


def appear(engine: Engine) -> None:
    commit(engine, [Status(PLACE, True, "b")], 1)


# ── the store ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_desired_state_is_merged_signed_and_numbered(engine: Engine) -> None:
    twin.set_desired(engine, "dev1", {"metered": True, "backlog_share": 0.3}, [], KEY.sign, 5)
    found = twin.set_desired(
        engine, "dev1", {"rate_bytes_per_s": 500}, ["backlog_share", "metered_priority"], KEY.sign, 6
    )
    state = {"metered": True, "rate_bytes_per_s": 500}
    assert found["desired"] == {"version": 2, "issued_ns": 6, "state": state}
    message = unseal((twin.desired_message(engine, "dev1") or "").encode(), "desired")
    KEY.public_key().verify(message.signature, signed_bytes("desired", message.body))
    wanted = read_desired(message.body)
    assert (wanted.device, wanted.version, wanted.state) == ("dev1", 2, state)
    assert twin.desired_message(engine, "dev2") is None


def test_a_cloud_that_began_anew_goes_on_above_what_the_device_reports(engine: Engine) -> None:
    twin.keep_reported(engine, "dev1", Reported(41, {"metered": True}, Refusal(42, "no")), 7)
    found = twin.set_desired(engine, "dev1", {}, [], KEY.sign, 8)
    assert found["desired"]["version"] == 42
    assert found["reported"] == {
        "version": 41, "at_ns": 7, "state": {"metered": True}, "refused": {"version": 42, "reason": "no"},
    }  # fmt: skip


@pytest.mark.parametrize(("changes", "unset"), [({"reboot": 1}, []), ({"backlog_share": 7}, []), ({}, ["reboot"])])
def test_what_no_device_would_take_is_refused_here(engine: Engine, changes: dict[str, Any], unset: list[str]) -> None:
    with pytest.raises(ValueError, match=r"reboot|backlog_share"):
        twin.set_desired(engine, "dev1", changes, unset, KEY.sign, 5)
    assert twin.twin(engine, "dev1")["desired"] is None


def made(engine: Engine, now_ns: int = 1_000 * S) -> str:
    return str(twin.make_command(engine, "dev1", "speed", {"value": 5}, 30.0, KEY.sign, now_ns)["id"])


def test_counters_rise_and_what_waits_goes_out_in_order(engine: Engine) -> None:
    ids = [made(engine), made(engine), made(engine, 900 * S), made(engine, 2_000 * S)]
    waiting = twin.waiting_commands(engine, "dev1", 0, 1_001 * S)
    read = [read_command(unseal(message.encode(), "command").body) for _, message in waiting]
    assert [c.id for c in read] == [ids[0], ids[1], ids[3]]  # the third has expired
    assert [c.counter for c in read] == [n for n, _ in waiting] == [1_000_000, 1_000_001, 2_000_000]
    assert twin.waiting_commands(engine, "dev1", 1_000_001, 1_001 * S) == waiting[2:]
    assert [row["id"] for row in twin.commands(engine, "dev1", 0, 10)] == ids
    assert twin.one_command(engine, "dev2", ids[0]) is None


@pytest.mark.parametrize(
    ("kinds", "ended"),
    [
        (["accepted"], None),
        (["accepted", "done"], "done"),
        (["refused", "replayed"], "refused"),
        (["replayed", "done"], "done"),
        (["accepted", "unknown", "done"], "done"),
        (["accepted", "done", "unknown", "replayed", "refused"], "done"),
        (["expired"], "expired"),
        (["what"], None),
    ],
)
def test_the_end_comes_with_the_events(engine: Engine, kinds: list[str], ended: str | None) -> None:
    ids = [made(engine), made(engine)]
    for seq, kind in enumerate(kinds, 1):
        body = {"id": ids[0], "reason": f"{kind} it was"}
        commit(engine, [batch([event(seq, "command", kind, **body)])], 9)
    found = twin.one_command(engine, "dev1", ids[0])
    assert found is not None
    assert found["ended"] == ended
    assert found["reason"] == (f"{ended} it was" if ended else None)
    other = twin.one_command(engine, "dev1", ids[1])
    assert other is not None
    assert other["ended"] is None
    assert len(twin.waiting_commands(engine, "dev1", 0, 1_001 * S)) == 2 - (
        kinds != ["what"]
    )  # begun or ended: not sent again


def test_a_device_ends_its_own_commands_only(engine: Engine) -> None:
    number = made(engine)
    other = replace(PLACE, device="dev2")
    commit(engine, [batch([event(1, "command", "done", device="dev2", id=number)], place=other)], 9)
    found = twin.one_command(engine, "dev1", number)
    assert found is not None
    assert found["ended"] is None


# ── the token ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_token_is_made_once_and_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "cloud.token"
    token = load_or_make(path)
    assert load_or_make(path) == token
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["cloud.token"]
    path.chmod(0o644)
    with pytest.raises(ResourceError, match="chmod 600"):
        load_or_make(path)


def test_only_the_whole_token_is_allowed() -> None:
    token = "t" * 43
    assert allowed(f"Bearer {token}", token)
    assert allowed(f"bearer  {token} ", token)
    for header in ("", token, f"Basic {token}", f"Bearer {token}x", f"Bearer {token[:-1]}", "Bearer ", "Bearer ü"):
        assert not allowed(header, token)
    assert not allowed("Bearer ", "")
    assert not allowed("Bearer short", "short")


# ── the API ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Api:
    def __init__(self, engine: Engine, folder: Path) -> None:
        self.sent: list[str] = []
        settings = CloudSettings(store=StoreSection(key_file=folder / "cloud.key"))
        self.token = load_or_make(settings.token_file)
        self.app = make_app(engine, settings, lambda: True, send=self.sent.append)

    def get(self, path: str) -> httpx.Response:
        return with_app(self.app, lambda client: client.get("/api/v1" + path))  # type: ignore[no-any-return]

    def post(self, path: str, body: Any, token: str | None = None, if_match: str = "*", **more: Any) -> httpx.Response:
        bearer = f"Bearer {self.token if token is None else token}"
        headers = httpx.Headers({"authorization": bearer, "if-match": if_match}, encoding="latin-1")
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        send = lambda client: client.post("/api/v1" + path, content=content, headers=headers, **more)  # noqa: E731
        return with_app(self.app, send)  # type: ignore[no-any-return]


@pytest.fixture
def api(sqlite: Engine, tmp_path: Path) -> Api:
    return Api(sqlite, tmp_path)


def test_without_the_token_nothing_is_written(api: Api, sqlite: Engine) -> None:
    appear(sqlite)
    command = {"name": "speed", "args": {"value": 1}}
    for token in ("", "x" * 43, api.token[:-1]):
        assert api.post("/devices/dev1/desired", {"set": {"metered": True}}, token).status_code == 401
        assert api.post("/devices/dev1/commands", command, token).status_code == 401
    nothing: dict[str, Any] = {"device": "dev1", "desired": None, "reported": None, "delta": {}}
    assert api.get("/devices/dev1/desired").json() == nothing
    assert api.get("/devices/dev1/commands").json() == {"items": [], "next_after": None}
    assert api.get(f"/devices/dev1/commands?after={2**63}").status_code == 422
    assert api.sent == []


def test_desired_state_through_the_api(api: Api) -> None:
    found = api.post("/devices/dev1/desired", {"set": {"metered": True}})
    assert found.status_code == 200
    assert found.json()["desired"]["state"] == {"metered": True}
    assert api.get("/devices/dev1/desired").json() == found.json()
    assert api.sent == ["dev1"]


def test_what_differs_between_desired_and_reported_is_told(sqlite: Engine) -> None:
    twin.set_desired(sqlite, "dev1", {"metered": True, "rate_bytes_per_s": 900}, [], KEY.sign, 1)
    both = {"metered": {"desired": True, "reported": None}, "rate_bytes_per_s": {"desired": 900, "reported": None}}
    assert twin.twin(sqlite, "dev1")["delta"] == both
    twin.keep_reported(sqlite, "dev1", Reported(1, {"metered": True, "backlog_share": 0.5}), 2)
    assert twin.twin(sqlite, "dev1")["delta"] == {
        "backlog_share": {"desired": None, "reported": 0.5},
        "rate_bytes_per_s": {"desired": 900, "reported": None},
    }
    twin.keep_reported(sqlite, "dev1", Reported(2, {"metered": True, "rate_bytes_per_s": 900}), 3)
    assert twin.twin(sqlite, "dev1")["delta"] == {}


def test_a_change_of_what_somebody_else_has_changed_is_refused(api: Api) -> None:
    first = api.post("/devices/dev1/desired", {"set": {"metered": True}}, if_match='"0"')
    assert (first.status_code, first.headers["etag"]) == (200, '"1"')
    refused = api.post("/devices/dev1/desired", {"set": {"metered": False}}, if_match='"0"')
    assert (refused.status_code, "has version 1, not 0" in refused.text) == (412, True)
    assert api.get("/devices/dev1/desired").headers["etag"] == '"1"'
    assert api.post("/devices/dev1/desired", {"set": {"metered": False}}, if_match='"1"').headers["etag"] == '"2"'
    assert api.post("/devices/dev1/desired", {"set": {}}, if_match="newest").status_code == 422
    assert api.post("/devices/dev1/desired", {"set": {}}, if_match="²").status_code == 422
    assert api.sent == ["dev1"] * 2


def test_commands_through_the_api(api: Api, sqlite: Engine) -> None:
    body = {"name": "speed", "args": {"value": 1}, "expires_s": 5}
    assert api.post("/devices/dev1/commands", body).status_code == 404
    appear(sqlite)
    found = api.post("/devices/dev1/commands", body)
    assert found.status_code == 202
    assert found.json()["expires_ns"] - found.json()["issued_ns"] == 5 * S
    assert api.get("/devices/dev1/commands/" + found.json()["id"]).json() == found.json()
    assert api.get("/devices/dev1/commands/none").status_code == 404
    for _ in range(2):
        api.post("/devices/dev1/commands", body)
    first = api.get("/devices/dev1/commands?limit=2").json()
    assert len(first["items"]) == 2
    assert len(api.get(f"/devices/dev1/commands?limit=2&after={first['next_after']}").json()["items"]) == 1
    assert api.sent == ["dev1"] * 3


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/devices/dev1/desired", {"set": {"reboot": 1}}, 422, "unknown key reboot"),
        ("/devices/dev1/desired", {"state": {}}, 422, "state: Extra inputs"),
        ("/devices/dev1/desired", b"{", 422, "Invalid JSON"),
        ("/devices/dev1/desired", b"", 422, "Invalid JSON"),
        ("/devices/a b/desired", {"set": {}}, 422, "device: expected 1 to 64"),
        ("/devices/dev1/commands", {"name": "a b", "args": {}}, 422, "name"),
        ("/devices/dev1/commands", {"name": "a", "args": {}, "expires_s": 0}, 422, "greater than 0"),
        ("/devices/dev1/commands", {"name": "a", "args": {}, "expires_s": 1e9}, 422, "less than or equal"),
        ("/devices/dev1/commands", b'{"name": "a", "args": {"value": NaN}}', 422, "JSON"),
        ("/devices/dev1/desired", b" " * (BODY_LIMIT_BYTES + 1), 413, "over the limit"),
        ("/devices/dev1/commands", {"name": "a", "args": {"value": "x" * BODY_LIMIT_BYTES}}, 413, "over the limit"),
    ],
)
def test_what_is_wrong_is_told_and_writes_nothing(
    api: Api, sqlite: Engine, path: str, body: Any, status: int, says: str
) -> None:
    appear(sqlite)
    found = api.post(path, body)
    assert found.status_code == status
    assert says in found.json()["detail"]
    assert api.sent == []


def test_the_public_key_is_told(api: Api, tmp_path: Path) -> None:
    from edge_runtime.identity import public_text

    assert api.get("/key").json() == {"public_key": public_text(load_key(tmp_path / "cloud.key"))}


# ── over a real broker, with the command line ───────────────────────────────────────────────────────────────────────


class Device:
    """An MQTT client that is asked things."""

    def __init__(self, port: int) -> None:
        self.got: queue.Queue[tuple[str, bytes]] = queue.Queue()
        ready: queue.Queue[bool] = queue.Queue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        self._client.on_message = lambda c, u, m: self.got.put((m.topic.rpartition("/")[2], bytes(m.payload)))
        self._client.on_subscribe = lambda *_: ready.put(True)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe([(PLACE.topic("desired"), 1), (PLACE.topic("command"), 1)])
        ready.get(timeout=WAIT_S)
        self.send("status", b'{"online": true, "boot_id": "b"}')

    def send(self, leaf: str, payload: bytes) -> None:
        self._client.publish(PLACE.topic(leaf), payload, qos=1, retain=leaf == "status").wait_for_publish(WAIT_S)

    def next(self) -> tuple[str, bytes]:
        return self.got.get(timeout=WAIT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Running:
    """Broker, dispatch and API, as `gudgeon cloud` has them."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        broker_socket, http = listen("127.0.0.1", 0, "broker.port"), listen("127.0.0.1", 0, "http.port")
        self.port, self.engine = port_of(broker_socket), engine
        self.broker = EmbeddedBroker(broker_socket)
        self.broker.start()
        settings = CloudSettings(store=StoreSection(key_file=folder / "cloud.key"))
        load_or_make(settings.token_file)
        self.dispatch = Dispatch(engine, "127.0.0.1", self.port)
        self.web = WebServer(make_app(engine, settings, send=self.dispatch.send), http)
        self.dispatch.start()
        self.web.start()
        assert self.dispatch.connected.wait(WAIT_S)
        where = ["--cloud", f"http://127.0.0.1:{port_of(http)}", "--token-file", str(settings.token_file)]
        self.where = [*where, "--json"]

    def close(self) -> None:
        self.web.stop()
        self.dispatch.stop()
        self.broker.stop()


@pytest.fixture
def running(sqlite: Engine, tmp_path: Path) -> Iterator[Running]:
    appear(sqlite)
    made_one = Running(sqlite, tmp_path)
    yield made_one
    made_one.close()


def test_a_device_is_told_and_tells(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    device = Device(running.port)
    assert device_cli.main(["dev1", "desired", "set", *running.where, "metered=true", "rate_bytes_per_s=900"]) == 0
    version = json.loads(capsys.readouterr().out)["desired"]["version"]
    leaf, payload = device.next()
    assert leaf == "desired"
    assert read_desired(unseal(payload, leaf).body).state == {"metered": True, "rate_bytes_per_s": 900}
    device.send("reported", Reported(version, {"metered": True, "rate_bytes_per_s": 900}).to_json())
    device.send("reported", b"rubbish")
    assert device_cli.main(["dev1", "desired", "unset", *running.where, "metered"]) == 0
    device.next()
    device.send("reported", Reported(version, {}, Refusal(version + 1, "not today")).to_json())
    capsys.readouterr()
    assert until(lambda: (twin.twin(running.engine, "dev1")["reported"] or {}).get("refused") is not None)
    assert device_cli.main(["dev1", "desired", "show", *running.where[:-1]]) == 0
    assert f"refused   version {version + 1}: not today" in capsys.readouterr().out
    device.close()


def test_what_is_asked_for_meanwhile_comes_when_the_device_appears(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    assert device_cli.main(["dev1", "command", "speed", "value=5", *running.where]) == 0
    number = json.loads(capsys.readouterr().out)["id"]
    assert until(lambda: not running.dispatch._work.unfinished_tasks)
    device = Device(running.port)
    leaf, payload = device.next()
    assert leaf == "command"
    assert read_command(unseal(payload, leaf).body).id == number
    commit(running.engine, [batch([event(1, "command", "done", id=number)])], 9)
    assert device_cli.main(["dev1", "commands", *running.where]) == 0
    assert json.loads(capsys.readouterr().out)[0]["ended"] == "done"
    for again in [device.got.get() for _ in range(device.got.qsize())]:  # what was still on its way when it came
        assert read_command(unseal(again[1], again[0]).body).id == number
    device.close()


@pytest.mark.parametrize(("kind", "code"), [("done", 0), ("refused", 1)])
def test_waiting_for_the_end_of_a_command(
    running: Running, kind: str, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(_: float) -> None:
        waiting = twin.waiting_commands(running.engine, "dev1", 0, time.time_ns())
        number = read_command(unseal(waiting[0][1].encode(), "command").body).id
        commit(running.engine, [batch([event(1, "command", kind, id=number, reason="so it is")])], 9)

    monkeypatch.setattr("cloud.device_cli.time.sleep", answer)
    assert device_cli.main(["dev1", "command", "speed", "value=true", "--wait", *running.where[:-1]]) == code
    assert f"{kind}: so it is" in capsys.readouterr().out


def test_wrong_use_of_the_command_line_is_told(running: Running, tmp_path: Path) -> None:
    for argv, says in (
        (["dev1", "desired", "set"], "at least one key"),
        (["dev1", "desired", "show", "metered"], "takes no keys"),
        (["dev1", "desired", "set", "metered"], "expected KEY=VALUE"),
        (["dev1", "desired", "set", "reboot=1"], "422: unknown key reboot"),
        (["dev2", "command", "speed", "value=1"], "404: no device dev2"),
    ):
        with pytest.raises(UsageError, match=says):
            device_cli.main([*argv, *running.where])
    with pytest.raises(EndpointError, match="check the address"):
        device_cli.main(["dev1", "key", "--cloud", "http://127.0.0.1:9"])
    with pytest.raises(UsageError, match="token"):
        device_cli.main(["dev1", "command", "speed", *running.where[:2]])
    (tmp_path / "wrong").write_text("x" * 43)
    (tmp_path / "wrong").chmod(0o600)
    with pytest.raises(GudgeonError, match="401"):
        device_cli.main(["dev1", "command", "speed", *running.where[:2], "--token-file", str(tmp_path / "wrong")])
    with pytest.raises(ResourceError, match="first start"):
        device_cli.main(["dev1", "command", "speed", *running.where[:2], "--token-file", str(tmp_path / "none")])
