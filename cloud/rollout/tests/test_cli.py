"""`gudgeon rollout` and the API, against a running cloud."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, select

from cloud import devices_cli
from cloud.access import operators
from cloud.access.roles import Actor, Role
from cloud.app import make_app
from cloud.bearer import load_or_make
from cloud.main import WebServer
from cloud.rollout import cli
from cloud.rollout.tests.made import TARGET, World, fleet
from cloud.settings import CloudSettings, StoreSection
from cloud.sockets import listen, port_of
from cloud.store import tables as t
from edge_runtime.errors import ConfigError, EndpointError, GudgeonError, UsageError

NAMES = ("dev00000", "nobody")
SHELL = Actor("shell", Role.ADMIN, "cli")


class Running:
    """A cloud on loopback with a fleet of simulated devices."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.world = World(engine, fleet(12))
        self.world.now_ns = time.time_ns()
        self.world.poll()
        settings = CloudSettings(store=StoreSection(key_file=folder / "cloud.key"))
        load_or_make(settings.token_file)
        http = listen("127.0.0.1", 0, "")
        self.web = WebServer(make_app(engine, settings, registry=self.world.registry), http)
        self.web.start()
        self.url = f"http://127.0.0.1:{port_of(http)}"
        self.where = ["--cloud", self.url, "--token-file", str(settings.token_file)]
        self.headers = {"authorization": "Bearer " + settings.token_file.read_text().strip()}

    def ask(self, method: str, path: str, token: str = "", **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else self.headers
        return httpx.request(method, f"{self.url}/api/v1{path}", headers=headers, **more)


@pytest.fixture
def running(sqlite: Engine, tmp_path: Path) -> Iterator[Running]:
    made = Running(sqlite, tmp_path)
    yield made
    made.web.stop()


def test_from_create_to_the_end(running: Running, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def tell(*argv: str, code: int = 0) -> Any:
        assert cli.main([*argv, *running.where, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    assert tell("tag", "dev00000", "line=7", "--zone", "Europe/Berlin")["tags"] == {"line": "7"}
    assert [d["device"] for d in tell("fleet", "--where", "line=7")] == ["dev00000"]
    made = tell("create", TARGET, "--slots", "default", "--id", "r1", "--canary", "3", "--max-in-flight", "6")
    assert (made["state"], made["created_by"], [g["name"] for g in made["groups"]]) == (
        "running",
        "token-file",
        ["canary", "all"],
    )
    running.world.later(1)
    running.world.poll()
    assert tell("pause", "r1", "--reason", "shift change")["state"] == "paused"
    assert tell("pause", "r1")["reason"] == "shift change"
    assert tell("resume", "r1")["state"] == "running"
    running.world.run(12)
    assert tell("watch", "r1", "--timeout", "30")["state"] == "finished"
    assert [d["state"] for d in tell("devices", "r1", "--state", "confirmed")] == ["confirmed"] * 12
    assert tell("status", "r1")["confirmed"] == 12
    assert tell("abort", "r1")["state"] == "aborting"
    assert tell("status", "r1", code=1)["reason"] == "by token-file"
    assert [r["id"] for r in tell("list")] == ["r1"]
    for action in (["list"], ["fleet"], ["devices", "r1"]):
        assert cli.main([*action, *running.where]) == 0
        assert ("r1" if action == ["list"] else "dev00011") in capsys.readouterr().out
    assert cli.main(["status", "r1", *running.where]) == 1
    assert "canary" in capsys.readouterr().out
    with pytest.raises(EndpointError, match="after 0 s"):
        cli.main(["watch", "r1", "--timeout", "0", *running.where])
    assert capsys.readouterr().out.count("canary") == 1  # no terminal: each change once, as a line of its own
    with running.world.engine.connect() as connection:
        rows = connection.execute(select(t.audit.c.action).order_by(t.audit.c.seq)).scalars().all()
    assert rows == ["fleet.tag", *(f"rollout.{a}" for a in ("create", "start", "pause", "resume", "abort"))]


def test_a_plan_from_a_file(running: Running, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'max_in_flight = 4\n[[groups]]\nname = "lab"\nwhere = ["device=dev00000"]\n[[groups]]\nname = "rest"\n'
    )
    argv = ["create", TARGET, "--slots", "default", "--plan", str(plan), "--abort-failed", "2%", "--draft", "--json"]
    assert cli.main([*argv, *running.where]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["state"], made["plan"]["abort"]["failed"], made["plan"]["max_in_flight"]) == ("draft", 0.02, 4)
    with pytest.raises(UsageError, match="leave them out"):
        cli.main([*argv, "--canary", "5%", *running.where])
    plan.write_text("groups = [")
    with pytest.raises(ConfigError, match="cannot be read"):
        cli.main([*argv, *running.where])


def test_what_is_wrong_is_told(running: Running) -> None:
    where = running.where
    with pytest.raises(UsageError, match="404: no rollout nothing"):
        cli.main(["status", "nothing", *where])
    with pytest.raises(UsageError, match="is not published"):
        cli.main(["create", "models/other/1.tar", "--slots", "default", *where])
    with pytest.raises(UsageError, match="group canary: percent"):
        cli.main(["create", TARGET, "--slots", "default", "--canary", "0%", *where])
    cli.main(["create", TARGET, "--slots", "default", "--id", "r1", "--draft", "--json", *where])
    with pytest.raises(GudgeonError, match="409: rollout r1 is draft, it cannot be paused"):
        cli.main(["pause", "r1", *where])
    with pytest.raises(EndpointError):
        cli.main(["list", "--cloud", "http://127.0.0.1:1", "--token-file", where[-1]])
    assert running.ask("GET", "/fleet/devices", params={"where": "Line=7"}).status_code == 422
    assert running.ask("GET", "/fleet/devices/nobody").status_code == 404
    assert running.ask("POST", "/fleet/devices/dev1/tags", json={"set": {"device": "x"}}).status_code == 422
    assert running.ask("POST", "/rollouts", json={"slot_set": "a", "target": TARGET, "more": 1}).status_code == 422


def test_who_may_do_what(running: Running) -> None:
    engine, now_ns = running.world.engine, time.time_ns()
    tokens = {}
    for name, role in (
        ("vera", Role.VIEWER),
        ("olga", Role.OPERATOR),
        ("anna", Role.RELEASER),
        ("berta", Role.RELEASER),
    ):
        operators.add(engine, SHELL, name, role, None, now_ns)
        tokens[name] = operators.make_token(engine, SHELL, name, role, 1, [], "", now_ns)[1]
    body = {"id": "r1", "slot_set": "default", "target": TARGET, "plan": {"approval": True}}
    for name in ("vera", "olga"):
        assert running.ask("POST", "/rollouts", tokens[name], json=body).status_code == 403
    assert running.ask("POST", "/rollouts", tokens["anna"], json=body).json()["state"] == "waiting_approval"
    refused = running.ask("POST", "/rollouts/r1/approve", tokens["anna"], json={})
    assert (refused.status_code, "another person" in refused.text) == (403, True)
    assert running.ask("POST", "/rollouts/r1/approve", tokens["berta"], json={}).json()["approved_by"] == "berta"
    assert running.ask("GET", "/rollouts/r1", tokens["vera"]).json()["state"] == "running"
    assert running.ask("POST", "/rollouts/r1/abort", tokens["vera"], json={}).status_code == 403
    with engine.connect() as connection:
        query = select(t.audit.c.actor, t.audit.c.outcome).where(t.audit.c.action == "rollout.approve")
        assert connection.execute(query).all() == [("anna", "refused"), ("berta", "done")]


def test_the_stream_tells_each_change_and_ends_with_the_rollout(running: Running) -> None:
    running.world.start(groups=[{"name": "all"}])
    seen = []
    with httpx.stream("GET", f"{running.url}/api/v1/rollouts/r1/stream", timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("data:"):
                seen.append(json.loads(line[5:])["state"])
                if seen == ["running"]:
                    assert running.ask("POST", "/rollouts/r1/abort", json={}).status_code == 200
                    running.world.later(1)
    assert (seen[0], seen[-1]) == ("running", "aborted")


def test_gudgeon_devices_lists_what_they_tell_of_their_updates(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    running.world.start(groups=[{"name": "all"}])
    running.world.run(4)

    class Cloud:
        def get(self, path: str, **params: Any) -> Any:
            if path == "/identities":
                return {"items": [{"device": d, "state": "valid", "hardware": "h", "certificate": None} for d in NAMES]}
            return running.ask("GET", path, params=params).json()

    assert devices_cli._list(Cloud(), argparse.Namespace(json=False)) == 0  # type: ignore[arg-type]
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert "default bbbbbbbbbbbb" in first
    assert "default" not in second
    assert devices_cli._list(Cloud(), argparse.Namespace(json=True)) == 0  # type: ignore[arg-type]
    told = json.loads(capsys.readouterr().out)
    assert [item["fleet"] and item["fleet"]["slots"]["default"]["state"] for item in told] == ["confirmed", None]
