"""Who is cut off, and how often: the store decides, whoever wrote it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine

from cloud.ca.local import LocalAuthority
from cloud.devices.broker_files import BrokerFiles
from cloud.devices.cutting import Cutting
from cloud.devices.tests.listening import make_csr, make_key
from cloud.enrol.desk import Desk
from cloud.enrol.tests.made import HOUR, Clock, make_desk
from cloud.settings import BrokerSection, CloudSettings, DevicesSection, StoreSection
from cloud.tests.conftest import sqlite
from edge_runtime.errors import EndpointError

__all__ = ["sqlite"]


class Broker:
    """Notes what is cut; away as long as `away`."""

    def __init__(self) -> None:
        self.cut: list[tuple[str, bool]] = []
        self.away = False

    def __call__(self, device: str, for_good: bool) -> None:
        if self.away:
            raise EndpointError("no broker")
        self.cut.append((device, for_good))


def enrol(desk: Desk, device: str) -> None:
    token = desk.make_token(device, f"hw-{device}", HOUR)
    desk.enrol(token.sent, f"hw-{device}", make_csr(device, make_key()))


def test_whoever_is_revoked_is_cut_once_and_a_replaced_one_gently(sqlite: Engine, tmp_path: Path) -> None:
    clock, broker = Clock(), Broker()
    desk = make_desk(sqlite, tmp_path, clock)
    cutting = Cutting(sqlite, None, broker, clock)
    for device in "abc":
        enrol(desk, device)
    assert cutting.look() == []
    desk.revoke("a", "stolen")
    desk.replace("b", "hw-new", HOUR)
    assert cutting.look() == ["a", "b"]
    assert broker.cut == [("a", True), ("b", False)]
    enrol(desk, "c")  # anew, with another key
    assert cutting.look() == ["c"]
    clock.now += timedelta(hours=2)
    assert cutting.look() == []


def test_a_broker_that_is_away_is_asked_again(sqlite: Engine, tmp_path: Path) -> None:
    clock, broker = Clock(), Broker()
    desk = make_desk(sqlite, tmp_path, clock)
    cutting = Cutting(sqlite, None, broker, clock)
    enrol(desk, "a")
    desk.revoke("a", "stolen")
    broker.away = True
    assert cutting.look() == []
    broker.away = False
    assert cutting.look() == ["a"]


def test_what_was_revoked_while_the_cloud_was_down_is_cut_at_the_first_look(sqlite: Engine, tmp_path: Path) -> None:
    clock, broker = Clock(), Broker()
    desk = make_desk(sqlite, tmp_path, clock)
    enrol(desk, "a")
    desk.revoke("a", "stolen")
    clock.now += timedelta(days=3)
    assert Cutting(sqlite, None, broker, clock).look() == ["a"]
    clock.now += timedelta(days=60)
    assert Cutting(sqlite, None, broker, clock).look() == [], "its certificate has expired"


def test_the_broker_hears_of_another_issuer_and_root(sqlite: Engine, tmp_path: Path) -> None:
    """Else it had no CRL of the new issuer, and let in nobody who enrols from now on."""
    clock = Clock()
    desk = make_desk(sqlite, tmp_path, clock)
    settings = CloudSettings(
        broker=BrokerSection(embedded=False, username="cloud", password_file=tmp_path / "password"),
        store=StoreSection(key_file=tmp_path / "cloud.key"),
        devices=DevicesSection(broker_folder=tmp_path / "broker"),
    )
    files = BrokerFiles(settings, desk)
    files.write()
    cutting = Cutting(sqlite, files, Broker(), clock)
    cutting.look()

    def told() -> tuple[int, int]:
        crl, roots = (settings.devices.broker_folder or tmp_path) / "crl.pem", tmp_path / "broker" / "roots.pem"
        return crl.read_bytes().count(b"BEGIN X509 CRL"), roots.read_bytes().count(b"BEGIN CERTIFICATE")

    assert told() == (1, 1)
    local = LocalAuthority(tmp_path / "ca")
    local.new_issuer(datetime.now(UTC))
    cutting.look()
    assert told() == (2, 1)
    local.new_root("Gudgeon", datetime.now(UTC))
    cutting.look()
    assert told() == (3, 2)
    assert not files.due
