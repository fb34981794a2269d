"""Sensors against servers that share no code with ours: libmodbus (C) and node-opcua (JavaScript). 20 forced reconnects each; the
500 are `make reconnects`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_runtime.cli import run
from edge_runtime.field.opcua_trust import TrustList
from edge_runtime.field.sections import EndpointSection, TagSection
from edge_runtime.field.source import ReportQueue
from edge_runtime.field.sources import make_sources
from edge_runtime.field.tag import Quality, Reason, Sample
from firmware_sim.pump.modbus import NullModem
from tools.peers import launch
from tools.proofs import reconnects

DROPS = 20
modbus = pytest.mark.skipif(bool(launch.missing_modbus()), reason=launch.missing_modbus())
opcua = pytest.mark.skipif(bool(launch.missing_opcua()), reason=launch.missing_opcua())


def first_values(endpoint: EndpointSection, tags: list[TagSection], folder: Path) -> dict[str, Sample]:
    queue = ReportQueue()
    (source,) = make_sources([endpoint], tags, queue.put, folder, "dev-1")
    source.start()
    try:
        found: dict[str, Sample] = {}
        for _ in range(200):
            found.update(
                {r.tag: r for r in queue.take(0.1) if isinstance(r, Sample) and r.reason is not Reason.NO_ANSWER}
            )
            if len(found) == len(tags):
                return found
        raise AssertionError((found, source.health()))
    finally:
        source.stop()


FLOAT = TagSection("float", "peer", "float32", address=2, word_order="CDAB")
ADDRESS = TagSection("address", "peer", "uint16", space="input", address=77)
BEYOND = TagSection("beyond", "peer", "uint16", address=4000)


@modbus
def test_libmodbus_over_tcp(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = launch.modbus_tcp(tmp_path)
    try:
        found = first_values(EndpointSection(name="peer", port=peer.port), [FLOAT, ADDRESS, BEYOND], tmp_path)
        assert found["float"].value == pytest.approx(21.37)
        assert (found["address"].value, found["beyond"].reason) == (77, Reason.REFUSED)
        asked = [f"127.0.0.1:{peer.port}", "--space", "holding", "--pause-ms", "0", "--to", "299", "--json"]
        assert run("probe", ["modbus", *asked]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["ranges"] == {"holding": [[0, 199]]}
        floats = {g["address"]: g["values"][0] for g in report["pairs"]["holding"] if g["type"] == "float32"}
        assert floats == pytest.approx({2: 21.37, 4: 6.283, 6: 1450.2, 8: 0.137})
        assert {g["word_order"] for g in report["pairs"]["holding"] if g["address"] in floats} == {"CDAB"}
    finally:
        peer.close()


@modbus
def test_libmodbus_over_a_serial_line(tmp_path: Path) -> None:
    wire = NullModem(None)
    peer = launch.modbus_rtu(tmp_path, wire.inner)
    try:
        endpoint = EndpointSection(name="peer", protocol="modbus-rtu", serial=wire.outer, baudrate=115200, parity="N")
        found = first_values(endpoint, [FLOAT, ADDRESS, BEYOND], tmp_path)
        assert found["float"].value == pytest.approx(21.37)
        assert (found["address"].value, found["beyond"].reason) == (77, Reason.REFUSED)
    finally:
        peer.close()
        wire.close()


@opcua
@pytest.mark.slow
@pytest.mark.parametrize("security", ["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"])
def test_node_opcua_with_encryption(tmp_path: Path, security: str) -> None:
    peer = launch.opcua(tmp_path)
    try:
        trust = TrustList(tmp_path / "opcua", "dev-1")
        trust.prepare()
        (trust.folder / "trusted" / "peer.pem").write_bytes(Path(peer.ready[1]).read_bytes())
        endpoint = EndpointSection(name="peer", protocol="opcua", port=peer.port, security=security)  # type: ignore[arg-type]
        nodes = [TagSection(n, "peer", "float64", node=f"ns=1;s={n}") for n in ("level", "counter", "nowhere")]
        found = first_values(endpoint, nodes, tmp_path)
        assert (found["level"].value, found["counter"].quality) == (21.5, Quality.GOOD)
        assert found["nowhere"].reason is Reason.REFUSED
    finally:
        peer.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", list(reconnects.BENCHES))
def test_no_loss_without_a_record(name: str, tmp_path: Path) -> None:
    if reason := reconnects.MISSING[name]():
        pytest.skip(reason)
    with reconnects.BENCHES[name](tmp_path) as bench:
        found = reconnects.reconnect(name, bench, DROPS)
    assert found.examples == []
    assert (found.drops, found.unrecorded) == (DROPS, 0)
    assert found.connects >= DROPS + 1 - (name == "modbus-rtu")
    assert found.gaps >= DROPS
