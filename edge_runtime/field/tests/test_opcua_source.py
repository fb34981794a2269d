"""OPC UA sensors against a real server: subscription, trust, logins, reconnection with back-fill or gap."""

from __future__ import annotations

import datetime
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asyncua")

from asyncua import ua

from edge_runtime.errors import EndpointError
from edge_runtime.field.opcua_source import OpcUaSource
from edge_runtime.field.opcua_trust import TrustList, thumbprint
from edge_runtime.field.sections import EndpointSection
from edge_runtime.field.source import ReportQueue
from edge_runtime.field.tag import Gap, Quality, Reason, Report, Sample, Tag, Wave
from edge_runtime.field.tests.opcua_sensors import Sensors

FLOW = Tag("flow", "float64", node="ns=2;s=flow", scale=2.0)
HEAT = Tag("heat", "float64", node="ns=2;s=heat")
NOWHERE = Tag("nowhere", "float64", node="ns=2;s=nowhere")
ODD = Tag("odd", "float64", node="this is no node id")
PATIENCE_S = 20.0


class Listener:
    """A running source and what it has told."""

    def __init__(self, source: OpcUaSource, queue: ReportQueue) -> None:
        self.source, self._queue = source, queue
        self.told: list[Report] = []

    def until(self, wanted: Callable[[list[Report]], bool]) -> list[Report]:
        """All that was told, once that is so; fails where it does not come."""
        deadline = time.monotonic() + PATIENCE_S
        while not wanted(self.told):
            assert time.monotonic() < deadline, (self.told, self.source.health())
            self.told += self._queue.take(0.1)
        return self.told

    def value(self, tag: str, value: float) -> Sample:
        found = self.until(lambda told: any(isinstance(r, Sample) and r.tag == tag and r.value == value for r in told))
        return next(r for r in found if isinstance(r, Sample) and r.tag == tag and r.value == value)


@contextmanager
def listening(server: Sensors, tags: list[Tag], trust: TrustList | None = None, **more: Any) -> Iterator[Listener]:
    queue = ReportQueue()
    endpoint = EndpointSection(name="gauges", protocol="opcua", port=server.port, publishing_ms=50, **more)
    source = OpcUaSource(endpoint, [(t, 0.02) for t in tags], queue.put, trust)
    source.start()
    try:
        yield Listener(source, queue)
    finally:
        source.stop()


@pytest.fixture(scope="module")
def plain() -> Iterator[Sensors]:
    server = Sensors({"flow": 1.5, "heat": 20.0, "wave": [1.0, 2.0, 3.0, 4.0]})
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(plain: Sensors) -> Sensors:
    """Starting one takes seconds: they share it, each with the same values at its start."""
    plain.set("flow", 1.5)
    return plain


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> TrustList:
    user = TrustList(tmp_path_factory.mktemp("user"), "user")
    user.prepare()
    return user


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory, user: TrustList) -> Iterator[Sensors]:
    """Sign & Encrypt alone, and nobody without a login."""
    known = [user.certificate.read_bytes()]
    server = Sensors({"flow": 1.5}, tmp_path_factory.mktemp("server"), users=True, user_certificates=known)
    server.start()
    yield server
    server.stop()


def login(tmp_path: Path, word: str = "s3cret") -> dict[str, Any]:
    secret = tmp_path / word
    secret.write_text(word)
    secret.chmod(0o600)
    return {"username": "gauge", "password_file": secret}


def trusting(tmp_path: Path, server: Sensors) -> TrustList:
    trust = TrustList(tmp_path / "device", "dev-1")
    trust.prepare()
    (trust.folder / "trusted" / "s.der").write_bytes(server.identity.certificate.read_bytes())
    return trust


def test_values_come_by_subscription_and_one_bad_node_stops_nothing(server: Sensors) -> None:
    with listening(server, [FLOW, NOWHERE, HEAT, ODD]) as gauges:
        assert gauges.value("flow", 3.0).quality is Quality.GOOD
        server.set("flow", 2.0)
        assert gauges.value("flow", 4.0)
        gauges.value("heat", 20.0)
        bad = {r.tag: r.reason for r in gauges.told if isinstance(r, Sample) and r.quality is Quality.BAD}
        assert bad == {"nowhere": Reason.REFUSED, "odd": Reason.REFUSED}
        assert gauges.source.health()[0].answers


def test_the_servers_quality_is_kept(server: Sensors) -> None:
    with listening(server, [FLOW]) as gauges:
        gauges.value("flow", 3.0)
        for code, quality, reason in (
            (ua.StatusCodes.UncertainLastUsableValue, Quality.UNCERTAIN, Reason.SOURCE_UNCERTAIN),
            (ua.StatusCodes.BadSensorFailure, Quality.BAD, Reason.SOURCE_BAD),
        ):
            server.set("flow", ua.DataValue(ua.Variant(7.0, ua.VariantType.Double), ua.StatusCode(code)))
            gauges.until(lambda told, q=quality, r=reason: (told[-1].quality, told[-1].reason) == (q, r))  # type: ignore
        server.set("flow", 8.0)
        gauges.value("flow", 16.0)
        assert [type(r) for r in gauges.told[-2:]] == [Gap, Sample]


def test_the_deadband_is_asked_of_the_server(server: Sensors) -> None:
    tag = Tag("flow", "float64", node="ns=2;s=flow", deadband=1.0, scale=2.0)
    with listening(server, [tag, HEAT]) as gauges:
        gauges.value("flow", 3.0)
        server.set("flow", 1.7)
        time.sleep(0.3)
        server.set("flow", 9.0)
        gauges.value("flow", 18.0)
        assert [r.value for r in gauges.told if isinstance(r, Sample) and r.tag == "flow"] == [3.0, 18.0]


def test_a_wave_comes_as_one(server: Sensors) -> None:
    tag = Tag("wave", "float32", node="ns=2;s=wave", count=4, rate_hz=1000.0)
    with listening(server, [tag]) as gauges:
        gauges.until(lambda told: any(isinstance(r, Wave) and r.values == (1.0, 2.0, 3.0, 4.0) for r in told))


def test_a_value_that_stands_still_is_told_again(server: Sensors) -> None:
    tag = Tag("flow", "float64", node="ns=2;s=flow", report_every_s=0.5)
    with listening(server, [tag]) as gauges:
        told = gauges.until(lambda told: len(told) >= 4)
        assert [r.value for r in told if isinstance(r, Sample)][:4] == [1.5] * 4


def test_after_a_cut_the_history_fills_what_was_missed() -> None:
    server = Sensors({"flow": 1.5}, history=True)
    server.start()
    try:
        _cut_and_filled(server)
    finally:
        server.stop()


def _cut_and_filled(server: Sensors) -> None:
    with listening(server, [FLOW]) as gauges:
        gauges.value("flow", 3.0)
        for value in (2.0, 2.5):
            server.set("flow", value)
            gauges.value("flow", 2 * value)
        gauges.source._backoff.first_s = 1.0
        gauges.source._backoff.rng.uniform = lambda a, b: b  # type: ignore[method-assign]
        server.drop()
        gauges.until(lambda told: any(isinstance(r, Sample) and r.reason is Reason.NO_ANSWER for r in told))
        for value in (3.0, 3.5, 4.0):
            server.set("flow", value)
        gauges.value("flow", 8.0)
        good = [r for r in gauges.told if isinstance(r, Sample) and r.quality is Quality.GOOD]
        assert [r.value for r in good] == [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
        assert all(a.mono_ns < b.mono_ns for a, b in itertools.pairwise(good))
        assert not any(isinstance(r, Gap) for r in gauges.told)


def test_a_cut_without_history_leaves_a_gap(server: Sensors) -> None:
    with listening(server, [FLOW], history=False) as gauges:
        gauges.value("flow", 3.0)
        server.drop()
        gauges.until(lambda told: any(isinstance(r, Gap) for r in told))


@pytest.mark.parametrize("security", ["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"])
def test_an_unknown_server_is_rejected_until_it_is_trusted(tmp_path: Path, vault: Sensors, security: str) -> None:
    trust = TrustList(tmp_path / "device", "dev-1")
    with listening(vault, [FLOW], trust, security=security, **login(tmp_path)) as gauges:
        gauges.until(lambda told: "is not trusted" in gauges.source.health()[0].problem)
        (rejected,) = (tmp_path / "device" / "rejected").iterdir()
        assert f"mv {rejected} {tmp_path / 'device' / 'trusted'}/" in gauges.source.health()[0].problem
        assert thumbprint(rejected.read_bytes()) in gauges.source.health()[0].problem
        rejected.rename(tmp_path / "device" / "trusted" / "gauges.der")
        assert gauges.value("flow", 3.0)
    assert trust.key.stat().st_mode & 0o777 == 0o600


def test_a_server_without_the_wanted_policy_is_told(tmp_path: Path, server: Sensors) -> None:
    with listening(server, [FLOW], TrustList(tmp_path, "d"), security="Basic256Sha256") as gauges:
        gauges.until(lambda told: "does not offer Basic256Sha256" in gauges.source.health()[0].problem)


def test_a_wrong_password_does_not_open_and_is_not_told(tmp_path: Path, vault: Sensors) -> None:
    more = {"security": "Basic256Sha256", **login(tmp_path, "guess")}
    with listening(vault, [FLOW], trusting(tmp_path, vault), **more) as gauges:
        gauges.until(lambda told: "cannot connect" in gauges.source.health()[0].problem)
        assert "guess" not in gauges.source.health()[0].problem


def test_a_certificate_opens(tmp_path: Path, vault: Sensors, user: TrustList) -> None:
    more = {"security": "Basic256Sha256", "cert_file": user.certificate, "key_file": user.key}
    with listening(vault, [FLOW], trusting(tmp_path, vault), **more) as gauges:
        assert gauges.value("flow", 3.0)


def test_a_certificate_that_has_run_out_is_refused(tmp_path: Path) -> None:
    trust = TrustList(tmp_path, "d")
    trust.prepare()
    certificate = trust.certificate.read_bytes()
    (tmp_path / "trusted" / "s.der").write_bytes(certificate)
    trust.check("server", certificate, datetime.datetime.now(datetime.UTC))
    with pytest.raises(EndpointError, match="has run out on"):
        trust.check("server", certificate, datetime.datetime(2200, 1, 1, tzinfo=datetime.UTC))


def test_after_a_restart_without_history_there_is_a_gap(server: Sensors) -> None:
    with listening(server, [FLOW, HEAT]) as gauges:
        gauges.value("heat", 20.0)
        gauges.value("flow", 3.0)
        server.stop()
        gauges.until(lambda told: sum(isinstance(r, Sample) and r.reason is Reason.NO_ANSWER for r in told) == 2)
        server.values["flow"] = 5.0
        server.start()
        gauges.value("flow", 10.0)
        gauges.until(lambda told: sum(isinstance(r, Gap) for r in told) == 2)
        gap = next(r for r in gauges.told if isinstance(r, Gap) and r.tag == "flow")
        assert gap.from_mono_ns < gap.to_mono_ns
        assert gauges.source.health()[0].gaps == 2
