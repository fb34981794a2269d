"""`gudgeon devices` against a running API: who may, what is told, and the authority's rotation on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import tomli_w
from sqlalchemy import Engine

from cloud.app import make_app
from cloud.audit.log import rows
from cloud.devices.side import make_authority, make_desk
from cloud.devices.tests.listening import make_csr, make_key
from cloud.enrol.desk import Desk
from cloud.main import WebServer
from cloud.settings import load_cloud
from cloud.sockets import listen, port_of
from cloud.tests.databases import empty_store
from edge_runtime.cli import run
from edge_runtime.wire.enrolment import read_token


class Running:
    def __init__(self, engine: Engine, folder: Path, serve: bool) -> None:
        self.config = folder / "cloud.toml"
        devices = {"serve": serve, "port": 0, "broker_folder": "broker"}
        broker = {"embedded": False, "username": "cloud", "password_file": "broker-password"}
        self.config.write_text(
            tomli_w.dumps({"devices": devices, "broker": broker, "store": {"url": "sqlite:///cloud.db"}})
        )
        settings = load_cloud(self.config)
        self.desk: Desk | None = make_desk(engine, settings, make_authority(settings)) if serve else None
        self.sock = listen("127.0.0.1", 0, "http.port")
        self.url = f"http://127.0.0.1:{port_of(self.sock)}"
        self.web = WebServer(make_app(engine, settings, desk=self.desk), self.sock, settings.http)
        self.token = settings.token_file


@pytest.fixture(params=[True])
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    with empty_store("sqlite", tmp_path) as engine:
        running = Running(engine, tmp_path, request.param)
        running.web.start()
        running.token.write_text("t" * 40)
        running.token.chmod(0o600)
        yield running
        running.web.stop()
        running.sock.close()


def devices(cloud: Running, *words: str) -> int:
    return run("devices", [*words, "--config", str(cloud.config), "--cloud", cloud.url])


def test_from_token_to_revocation_and_replacement(cloud: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert devices(cloud, "token", "a", "--hardware", "hw", "--ttl", "30m") == 0
    token = read_token(capsys.readouterr().out)
    assert cloud.desk
    cloud.desk.enrol(token.sent, "hw", make_csr("a", make_key()))
    assert devices(cloud, "list", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["device"], one["state"], one["hardware"]) for one in found] == [("a", "valid", "hw")]
    assert devices(cloud, "token", "a", "--hardware", "other") == 1
    assert "use: gudgeon devices replace a" in capsys.readouterr().err
    assert devices(cloud, "revoke", "a", "--reason", "stolen") == 0
    assert capsys.readouterr().out == "a is revoked; 1 certificate held until now\n"
    assert devices(cloud, "show", "a") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("a: revoked (stolen), hardware hw\n")
    assert token.secret not in shown
    assert devices(cloud, "replace", "a", "--hardware", "other", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["hardware"], read_token(told["token"]).root) == ("other", token.root)
    assert devices(cloud, "show", "nobody") == 2


def test_without_the_token_nothing_is_changed(cloud: Running, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = cloud.token.with_name("wrong")
    wrong.write_text("w" * 40)
    wrong.chmod(0o600)
    words = ["revoke", "a", "--reason", "x", "--cloud", cloud.url, "--token-file", str(wrong)]
    assert run("devices", words) == 1
    assert ": 401: " in capsys.readouterr().err


@pytest.mark.parametrize("cloud", [False], indirect=True)
def test_a_cloud_that_does_not_listen_for_devices_says_so(cloud: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert devices(cloud, "token", "a", "--hardware", "hw") == 1
    assert "set devices.serve = true" in capsys.readouterr().err
    assert devices(cloud, "list") == 0


def test_the_authority_is_rotated_and_an_old_root_stays_while_it_is_needed(
    cloud: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    def ca(*words: str) -> int:
        return run("devices", ["ca", *words, "--config", str(cloud.config), "--json"])

    assert cloud.desk
    token = cloud.desk.make_token("a", "hw", timedelta(hours=1))
    key = make_key()
    old = cloud.desk.enrol(token.sent, "hw", make_csr("a", key))
    assert ca("new-issuer") == 0
    assert ca("new-root") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(i["number"], i["root"]) for i in found["issuers"]] == [(1, 1), (2, 1), (3, 2)]
    assert ca("retire-root", "1") == 1
    assert "1 devices still have certificates from it (a)" in capsys.readouterr().err
    token = cloud.desk.make_token("a", "hw", timedelta(hours=1))
    new = cloud.desk.enrol(token.sent, "hw", make_csr("a", make_key()))
    assert (new.roots.count("BEGIN"), old.roots.count("BEGIN")) == (2, 1)
    assert ca("retire-root", "1") == 0
    assert [r["number"] for r in json.loads(capsys.readouterr().out)["roots"]] == [2]
    with cloud.desk.engine.connect() as connection:
        told = [(row.action, row.subject) for row, _ in rows(connection) if row.action.startswith("ca.")]
    assert told == [("ca.new-issuer", "1"), ("ca.new-root", "2"), ("ca.retire-root", "1")]


def test_the_files_of_the_broker_are_written(cloud: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("devices", ["broker", "--config", str(cloud.config), "--json"]) == 0
    conf = Path(json.loads(capsys.readouterr().out)["conf"])
    names = {"mosquitto.conf", "acl", "passwords", "roots.pem", "crl.pem", "server.pem"}
    assert {p.name for p in conf.parent.iterdir()} == names
    assert all(p.stat().st_mode & 0o077 == 0 for p in (conf.parent, *conf.parent.iterdir()))


@pytest.mark.parametrize(
    "words", [["token", "a"], ["ca", "retire-root"], ["ca", "show", "1"], ["list"], ["revoke", "a"]]
)
def test_wrong_use_is_told(words: list[str], tmp_path: Path) -> None:
    more = ["--config", str(tmp_path / "c.toml")] if words[0] != "list" else []
    with pytest.raises(SystemExit, match="2"):
        run("devices", [*words, *more])


def test_who_only_looks_makes_no_authority(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "cloud.toml"
    config.write_text("")
    assert run("devices", ["ca", "show", "--config", str(config)]) == 6
    assert "there is no certificate authority; `gudgeon cloud` makes one" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["cloud.toml"]
