"""Tokens and renewals: once means once, on both databases, and nobody gets what is another's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Engine, select

from cloud.audit.log import rows
from cloud.ddi import store as ddi
from cloud.devices.tests.listening import make_csr, make_key
from cloud.enrol import listing
from cloud.enrol.desk import A_DAY, HARDWARE_TRIES, Desk, Proof
from cloud.enrol.refused import RefusedError
from cloud.enrol.tests.made import HOUR, Clock, make_desk
from cloud.store import tables as t
from edge_runtime.wire.enrolment import Certified, proof_bytes, read_token


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(sqlite: Engine, tmp_path: Path, clock: Clock) -> Desk:
    return make_desk(sqlite, tmp_path, clock)


@pytest.fixture
def on_both(engine: Engine, tmp_path: Path, clock: Clock) -> Desk:
    return make_desk(engine, tmp_path, clock)


def enrol(desk: Desk, key: ec.EllipticCurvePrivateKey | None = None, device: str = "a") -> Certified:
    token = desk.make_token(device, f"hw-{device}", HOUR)
    return desk.enrol(token.sent, f"hw-{device}", make_csr(device, key or make_key()))


def certificate_of(given: Certified) -> x509.Certificate:
    return x509.load_pem_x509_certificate(given.certificate.encode())


def prove(desk: Desk, key: ec.EllipticCurvePrivateKey, old: Certified, csr: str, device: str = "a") -> Proof:
    challenge = desk.challenges.make(device, desk.now_ns())
    signature = key.sign(proof_bytes(device, challenge, csr), ec.ECDSA(hashes.SHA256()))
    return Proof(old.certificate, challenge, signature)


def test_of_many_that_use_a_token_at_once_one_gets_a_certificate(on_both: Desk) -> None:
    token = on_both.make_token("a", "hw", HOUR)
    requests = [make_csr("a", make_key()) for _ in range(8)]

    def ask(csr: str) -> Certified | str:
        try:
            return on_both.enrol(token.sent, "hw", csr)
        except RefusedError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, requests))
    assert sum(isinstance(one, Certified) for one in found) == 1
    assert all("used" in one for one in found if isinstance(one, str))
    with on_both.engine.connect() as connection:
        assert len(connection.execute(select(t.certificate.c.serial)).all()) == 1


def test_the_same_key_gets_the_same_certificate_again(desk: Desk) -> None:
    token, csr = desk.make_token("a", "hw", HOUR), make_csr("a", make_key())
    assert desk.enrol(token.sent, "hw", csr) == desk.enrol(token.sent, "hw", csr)


def test_what_is_kept_of_a_token_is_a_hash(desk: Desk) -> None:
    token = desk.make_token("a", "hw", HOUR)
    assert read_token(token.text()) == token
    with desk.engine.connect() as connection:
        kept = connection.execute(select(t.enrolment_token)).mappings().one()
        logged = [row.detail for row, _ in rows(connection)]
    assert token.secret not in str(dict(kept)) + str(logged)


def test_wrong_hardware_is_refused_and_after_a_few_tries_the_token_is_withdrawn(on_both: Desk) -> None:
    token, csr = on_both.make_token("a", "hw", HOUR), make_csr("a", make_key())
    for _ in range(HARDWARE_TRIES):
        with pytest.raises(RefusedError, match="the token is for hardware hw"):
            on_both.enrol(token.sent, "other", csr)
    with pytest.raises(RefusedError, match="withdrawn"):
        on_both.enrol(token.sent, "hw", csr)


def test_a_token_expires_and_a_newer_one_withdraws_it(desk: Desk, clock: Clock) -> None:
    first, csr = desk.make_token("a", "hw", HOUR), make_csr("a", make_key())
    second = desk.make_token("a", "hw", HOUR)
    with pytest.raises(RefusedError, match="withdrawn"):
        desk.enrol(first.sent, "hw", csr)
    clock.now += HOUR
    with pytest.raises(RefusedError, match="expired"):
        desk.enrol(second.sent, "hw", csr)


def test_a_wrong_secret_tells_nothing(desk: Desk) -> None:
    token, csr = desk.make_token("a", "hw", HOUR), make_csr("a", make_key())
    texts = set()
    for sent in (f"{token.number}.{'x' * 43}", f"{'0' * 16}.{token.secret}", token.number, "", "."):
        with pytest.raises(RefusedError) as refused:
            desk.enrol(sent, "hw", csr)
        texts.add(str(refused.value))
    assert len(texts) == 1
    assert desk.enrol(token.sent, "hw", csr)


def test_a_renewal_comes_early_only_with_what_was_there(desk: Desk, clock: Clock) -> None:
    key = make_key()
    first = enrol(desk, key)
    csr = make_csr("a", key)
    assert desk.renew("a", csr).certificate == first.certificate
    clock.now += timedelta(days=40)
    second = desk.renew("a", csr)
    assert second.certificate != first.certificate
    assert desk.renew("a", csr) == second
    assert desk.check(certificate_of(first), "a"), "the old one holds until it expires"


def test_a_device_that_asks_for_one_certificate_after_the_other_is_stopped(desk: Desk, clock: Clock) -> None:
    enrol(desk)
    for _ in range(A_DAY - 1):
        desk.renew("a", make_csr("a", make_key()))
    with pytest.raises(RefusedError, match="20 certificates within a day") as refused:
        desk.renew("a", make_csr("a", make_key()))
    assert refused.value.status == 429
    clock.now += timedelta(days=1)
    assert desk.renew("a", make_csr("a", make_key()))


def test_a_proof_needs_the_key_the_challenge_and_the_grace(desk: Desk, clock: Clock) -> None:
    key = make_key()
    old, csr = enrol(desk, key), make_csr("a", key)
    clock.now += timedelta(days=70)
    for proof, text in (
        (prove(desk, make_key(), old, csr), "not signed with the key"),
        (prove(desk, key, old, make_csr("a", key)), "not signed with the key"),
        (prove(desk, key, old, csr, "b"), "challenge"),
        (replace(prove(desk, key, old, csr), challenge="0.0.0"), "challenge"),
    ):
        with pytest.raises(RefusedError, match=text):
            desk.renew_with_proof("a", csr, proof)
    assert desk.renew_with_proof("a", csr, prove(desk, key, old, csr)).certificate != old.certificate
    clock.now += timedelta(days=51)
    with pytest.raises(RefusedError, match="60 days in which it could be renewed are over"):
        desk.renew_with_proof("a", csr, prove(desk, key, old, csr))


def test_a_revoked_device_is_nobody_until_it_is_replaced(on_both: Desk, clock: Clock) -> None:
    key = make_key()
    old, csr = enrol(on_both, key), make_csr("a", key)
    waiting = on_both.make_token("a", "hw-a", HOUR)
    serial = f"{certificate_of(old).serial_number:040x}"
    assert on_both.revoke("a", "stolen") == [serial]
    for ask in (
        lambda: on_both.check(certificate_of(old), "a"),
        lambda: on_both.renew("a", make_csr("a", make_key())),
        lambda: on_both.renew_with_proof("a", csr, prove(on_both, key, old, csr)),
        lambda: on_both.enrol(waiting.sent, "hw-a", csr),
        lambda: on_both.make_token("a", "hw-a", HOUR),
    ):
        with pytest.raises(RefusedError, match=r"revoked|withdrawn"):
            ask()
    assert [f"{one.serial:040x}" for one in on_both.revoked()] == [serial]
    token = on_both.replace("a", "hw-new", HOUR)
    fresh = on_both.enrol(token.sent, "hw-new", make_csr("a", make_key()))
    assert on_both.check(certificate_of(fresh), "a")
    with pytest.raises(RefusedError, match="revoked"):
        on_both.check(certificate_of(old), "a")
    with pytest.raises(RefusedError, match="use: gudgeon devices replace a"):
        on_both.make_token("a", "hw-other", HOUR)


def test_what_was_done_is_in_the_audit_log(on_both: Desk, clock: Clock) -> None:
    key = make_key()
    enrol(on_both, key)
    clock.now += timedelta(days=40)
    on_both.renew("a", make_csr("a", key))
    on_both.revoke("a", "stolen")
    on_both.replace("a", "hw-2", HOUR)
    with on_both.engine.connect() as connection:
        found = [(row.actor, row.action, row.subject) for row, _ in rows(connection)]
    by = "device a"
    assert found == [("cli", "identity.token", "a"), (by, "identity.enrol", "a"), (by, "identity.renew", "a"),
                     ("cli", "identity.revoke", "a"), ("cli", "identity.replace", "a")]  # fmt: skip


def test_the_state_of_each_device_in_one_word(desk: Desk, clock: Clock) -> None:
    for device in "abcd":
        enrol(desk, device=device)
    desk.make_token("e", "hw", HOUR)
    desk.revoke("b", "sold")
    desk.replace("c", "hw-c2", HOUR)
    with pytest.raises(RefusedError, match="gudgeon devices token cc"):
        desk.replace("cc", "hw-c2", HOUR)
    states = {one["device"]: one["state"] for one in listing.identities(desk.engine, clock())}
    assert states == {"a": "valid", "b": "revoked", "c": "waiting", "d": "valid", "e": "waiting"}
    clock.now += timedelta(days=61)
    shown = listing.identity(desk.engine, "a", clock())
    assert shown
    assert (shown["state"], [token["state"] for token in shown["tokens"]]) == ("expired", ["used"])


BAD_NAMES = [("a/b", "hw", HOUR), ("a", "h w", HOUR), ("a", "hw", timedelta(0)), ("a", "hw", timedelta(days=31))]


@pytest.mark.parametrize(("device", "hardware", "ttl"), BAD_NAMES)
def test_names_that_fit_no_topic_and_times_without_end_are_refused(
    sqlite: Engine, tmp_path: Path, device: str, hardware: str, ttl: timedelta
) -> None:
    with pytest.raises(RefusedError, match="expected"):
        make_desk(sqlite, tmp_path).make_token(device, hardware, ttl)


@pytest.mark.parametrize("how", ["revoke", "replace"])
def test_what_the_device_showed_on_the_ddi_routes_holds_no_more(desk: Desk, how: str) -> None:
    enrol(desk)
    with desk._writing() as connection:
        token = ddi.make_token(connection, "a", desk.now_ns())
    assert ddi_fits(desk, token)
    if how == "revoke":
        desk.revoke("a", "stolen")
    else:
        desk.replace("a", "hw-b", HOUR)
    assert not ddi_fits(desk, token)


def ddi_fits(desk: Desk, token: str) -> bool:
    with desk.engine.connect() as connection:
        return ddi.token_fits(connection, "a", token)
