"""Enrolment and renewal end to end: the command of the device against a real listener, over TLS."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.devices.tests.listening import Listening, listening
from cloud.registry.making import make_registry
from cloud.registry.publishing import utc_now
from cloud.tests.databases import empty_store
from edge_runtime.cli import run
from edge_runtime.identity import load_or_make, public_text
from edge_runtime.identity.cloud import Cloud
from edge_runtime.identity.credentials import CredentialStore, trusting
from edge_runtime.identity.renewer import AFTER_REFUSAL_S, LOOK_S, Renewer
from edge_runtime.tls_files import CERTIFICATE, KEY

HARDWARE = "board:1"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Listening]:
    with empty_store("sqlite", tmp_path) as engine, listening(engine, tmp_path) as started:
        yield started


@pytest.fixture
def config(tmp_path: Path, cloud: Listening) -> Path:
    path = tmp_path / "device.toml"
    identity = f'[identity]\nurl = "https://localhost:{cloud.port}"\nhardware_id = "{HARDWARE}"\n'
    path.write_text(f'[device]\nid = "a"\nstate_dir = "state"\n{identity}')
    return path


def token_file(cloud: Listening, hardware: str = HARDWARE) -> Path:
    path = cloud.folder / "token"
    path.write_text(cloud.desk.make_token("a", hardware, timedelta(hours=1)).text() + "\n")
    path.chmod(0o600)
    return path


def enroll(config: Path, *words: str) -> int:
    return run("enroll", ["--config", str(config), *words])


def cloud_of(cloud: Listening) -> Cloud:
    return Cloud(f"https://localhost:{cloud.port}")


def test_one_command_and_the_device_has_a_certificate_that_works(
    cloud: Listening, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enroll(config, "--hardware-id") == 0
    assert capsys.readouterr().out == f"{HARDWARE}\n"
    assert enroll(config, "--token-file", str(token_file(cloud)), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["device"] == "a"
    assert (cloud.folder / "state" / KEY).stat().st_mode & 0o777 == 0o600
    cloud_of(cloud).works(CredentialStore(cloud.folder / "state", "a").current())
    assert enroll(config, "--token-file", str(cloud.folder / "token")) == 0, "the same command again goes on"
    assert enroll(config, "--new-key", "--token-file", str(cloud.folder / "token")) == 1
    assert "used already" in capsys.readouterr().err


def test_enrolment_brings_the_key_of_the_cloud_once(
    cloud: Listening, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token, kept = str(token_file(cloud)), cloud.folder / "state/identity/cloud.pub"
    own = public_text(load_or_make(cloud.settings.store.key_file))
    assert enroll(config, "--token-file", token, "--json") == 0
    assert json.loads(capsys.readouterr().out)["cloud_key"] == own
    assert kept.read_text() == f"{own}\n"
    other = public_text(Ed25519PrivateKey.generate())
    kept.write_text(f"{other}\n")
    assert enroll(config, "--token-file", token, "--json") == 0
    assert json.loads(capsys.readouterr().out)["cloud_key"] == ""
    assert kept.read_text() == f"{other}\n", "what was put there by hand stays"


def test_a_token_by_stdin_and_the_root_from_a_file(
    cloud: Listening, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(token_file(cloud).read_text()))
    assert enroll(config, "--token-stdin", "--ca-file", str(cloud.roots)) == 0


def test_enrolment_brings_the_first_root_to_a_device_that_asks_for_updates(
    cloud: Listening, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = cloud.folder / "state/trust/root.json"
    token = str(token_file(cloud))
    assert enroll(config, "--token-file", token, "--json") == 0
    assert json.loads(capsys.readouterr().out)["first_root"] == ""
    with config.open("a") as file:
        file.write(f'[update]\nurl = "https://localhost:{cloud.port}"\n')
    assert enroll(config, "--token-file", token) == 0
    assert "no repository of releases yet" in capsys.readouterr().err
    assert not kept.exists()
    registry = make_registry(cloud.folder / "registry", cloud.folder / "keys", utc_now())
    assert enroll(config, "--token-file", token, "--json") == 0
    assert json.loads(capsys.readouterr().out)["first_root"] == hashlib.sha256(kept.read_bytes()).hexdigest()
    assert kept.read_bytes() == registry.root(1).data
    other = cloud.folder / "other.json"
    other.write_bytes(
        registry.root(1).data.replace(b'"version":1', b'"version":2').replace(b'"version": 1', b'"version": 2')
    )
    assert enroll(config, "--token-file", token, "--root-file", str(other)) == 8
    assert kept.read_bytes() == registry.root(1).data


def test_wrong_use_is_one_line(cloud: Listening, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = token_file(cloud, "board:2")
    assert enroll(config, "--token-file", str(token)) == 1
    assert "the token is for hardware board:2, and this is 'board:1'" in capsys.readouterr().err
    token.write_text("rubbish")
    assert enroll(config, "--token-file", str(token)) == 2
    token.chmod(0o644)
    assert enroll(config, "--token-file", str(token)) == 6
    with pytest.raises(SystemExit, match="2"):
        enroll(config)


def test_a_new_key_takes_the_place_of_the_old_and_the_old_certificate_is_revoked(
    cloud: Listening, config: Path
) -> None:
    assert enroll(config, "--token-file", str(token_file(cloud))) == 0
    old = (cloud.folder / "old.pem", (cloud.folder / "state" / KEY).read_bytes())
    old[0].write_bytes(old[1] + (cloud.folder / "state" / CERTIFICATE).read_bytes())
    assert enroll(config, "--new-key", "--token-file", str(token_file(cloud))) == 0
    assert (cloud.folder / "state" / KEY).read_bytes() != old[1]
    refused = cloud.ask("GET", "/device/v1/devices/a/certificate", certificate=old[0])
    assert "revoked (enrolled anew)" in refused.detail


def enrolled_before(cloud: Listening, days: int) -> CredentialStore:
    """A device that was enrolled so many days ago, as its cloud and its certificate have it."""
    store = CredentialStore(cloud.folder / "state", "a")
    cloud.clock.advance(timedelta(days=-days))
    token = cloud.desk.make_token("a", HARDWARE, timedelta(hours=1))
    given = cloud.desk.enrol(token.sent, HARDWARE, store.key().request("a"))
    store.adopt(given, store.key(), False, cloud.clock(), lambda _: None)
    cloud.clock.advance(timedelta(days=days))
    return store


@pytest.mark.parametrize(("days", "by"), [(50, "renew"), (70, "prove"), (119, "prove")])
def test_renewal_in_time_and_after_expiry(cloud: Listening, days: int, by: str) -> None:
    store = enrolled_before(cloud, days)
    first, told = store.current().certificate(), list[dict[str, str]]()
    device = Renewer(store, cloud_of(cloud), lambda kind, body: told.append({"kind": kind, **body}))
    assert device.step(time.time_ns()) == LOOK_S
    assert [(t["kind"], t["by"]) for t in told] == [("certificate_renewed", by)]
    assert store.current().certificate().serial_number != first.serial_number
    cloud_of(cloud).works(store.current())


@pytest.mark.parametrize(("days", "revoked", "text"), [(121, False, "are over"), (70, True, "a was revoked (stolen)")])
def test_beyond_the_grace_or_revoked_there_is_no_renewal(cloud: Listening, days: int, revoked: bool, text: str) -> None:
    store = enrolled_before(cloud, days)
    if revoked:
        cloud.desk.revoke("a", "stolen")
    told: list[str] = []
    assert (
        Renewer(store, cloud_of(cloud), lambda _, body: told.append(body["reason"])).step(time.time_ns())
        == AFTER_REFUSAL_S
    )
    assert text in told[0]


def test_the_answer_to_a_renewal_was_lost_and_the_same_certificate_comes_again(cloud: Listening) -> None:
    store = enrolled_before(cloud, 70)
    current = store.current()
    csr = current.key.request("a")
    context = trusting(current.roots_path)
    first = cloud_of(cloud).renew_expired(context, current, csr)
    assert cloud_of(cloud).renew_expired(context, current, csr) == first
