"""Renewal: when, how, and what a failure costs."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import DataError, EndpointError
from edge_runtime.identity.cloud import CloudRefusedError
from edge_runtime.identity.credentials import CredentialStore
from edge_runtime.identity.renewer import AFTER_REFUSAL_S, LOOK_S, Renewer
from edge_runtime.identity.schedule import Do, Life, jitter, plan, renew_at_ns
from edge_runtime.identity.tests.made import DAY_NS, NOW, NOW_NS, FakeCloud, Root
from edge_runtime.identity.tests.test_credentials import works

BEGAN_NS = NOW_NS - DAY_NS
LIFE = Life(BEGAN_NS, BEGAN_NS + 60 * DAY_NS)


@given(st.integers(0, 90 * DAY_NS), st.floats(0, 1))
def test_it_waits_then_renews_then_proves(since_ns: int, spread: float) -> None:
    due = plan(LIFE, spread, BEGAN_NS + since_ns)
    if since_ns < 40 * DAY_NS:
        assert due is Do.WAIT
    elif 45 * DAY_NS < since_ns < 60 * DAY_NS:
        assert due is Do.RENEW
    elif since_ns >= 60 * DAY_NS:
        assert due is Do.PROVE
    assert 40 * DAY_NS - 1 <= renew_at_ns(LIFE, spread) - BEGAN_NS <= 45 * DAY_NS + 1


def test_a_fleet_that_was_enrolled_together_is_spread() -> None:
    found = [jitter(f"press-{n}", 7) for n in range(1000)]
    assert len({round(f * 10) for f in found}) == 11
    assert jitter("press-1", 7) == found[1]
    assert jitter("press-1", 8) != found[1]


class Device:
    def __init__(self, folder: Path) -> None:
        self.store, self.root = CredentialStore(folder, "a"), Root()
        first = self.root.certify(self.store.key().request("a"), NOW - timedelta(days=1))
        self.store.adopt(first, self.store.key(), False, NOW_NS, works)
        self.cloud = FakeCloud(self.root)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.renewer = Renewer(self.store, self.cloud, lambda kind, body: self.told.append((kind, body)))

    def step(self, days: float) -> float:
        self.cloud.begins = NOW + timedelta(days=days) - timedelta(hours=1)
        return self.renewer.step(NOW_NS + round(days * DAY_NS))


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_nothing_is_asked_before_it_is_time(device: Device) -> None:
    assert device.step(10) == LOOK_S
    assert (device.cloud.asked, device.told) == ([], [])


def test_in_time_it_is_renewed_and_tried_with_the_same_key(device: Device) -> None:
    before = device.store.current().certificate()
    assert device.step(50) == LOOK_S
    after = device.store.current().certificate()
    assert device.cloud.asked == ["renew", "works"]
    assert (after.public_key(), after.serial_number != before.serial_number) == (before.public_key(), True)
    assert [(kind, body["by"]) for kind, body in device.told] == [("certificate_renewed", "renew")]
    assert device.step(51) == LOOK_S
    assert device.cloud.asked == ["renew", "works"], "it is not due any more"


def test_expired_the_old_key_is_proven(device: Device) -> None:
    device.step(70)
    assert device.cloud.asked == ["prove", "works"]


def test_where_tls_does_not_take_the_old_certificate_its_key_is_proven(device: Device) -> None:
    error = EndpointError("alert")
    error.__cause__ = ssl.SSLError(1, "tlsv13 alert certificate unknown")
    device.cloud.fail["renew"] = error
    device.step(50)
    assert device.cloud.asked == ["renew", "prove", "works"]


@pytest.mark.parametrize("where", ["renew", "works"])
def test_a_failure_is_told_once_and_tried_again_and_what_was_there_stays(device: Device, where: str) -> None:
    before = device.store.current().certificate()
    device.cloud.fail[where] = EndpointError("no answer")
    waits = [device.step(50 + n / 10) for n in range(3)]
    assert all(30 <= wait <= 3600 for wait in waits)
    assert device.told == [("certificate_not_renewed", {"reason": "no answer"})]
    assert device.store.current().certificate() == before
    del device.cloud.fail[where]
    device.step(51)
    assert device.told[1][0] == "certificate_renewed"


def test_after_a_refusal_it_asks_seldom(device: Device) -> None:
    device.cloud.fail["renew"] = CloudRefusedError("the cloud refuses: a was revoked (stolen)", 403)
    assert device.step(50) == AFTER_REFUSAL_S
    assert device.told == [("certificate_not_renewed", {"reason": "the cloud refuses: a was revoked (stolen)"})]


def test_a_certificate_that_does_not_fit_is_a_failure_like_others(device: Device) -> None:
    device.cloud.fail["renew"] = DataError("for another key")
    assert device.step(50) >= 30
