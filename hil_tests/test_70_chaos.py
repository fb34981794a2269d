"""A real device and cloud pair, through every fault of `gudgeon chaos`: one test a fault, named after it.

Each asserts the ledger (nothing acknowledged lost, no second effect, no accusation by the cloud, recovered) and that the
fault really happened, by counts of the kernel, the proxy or the stored records.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hil_tests.bench import gudgeon
from tools.chaos.scenarios import SCENARIOS, missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def chaos(scenario: str, folder: Path, seconds: float | None = None) -> dict[str, Any]:
    """The result of a scenario that lost nothing, doubled nothing and recovered."""
    if lacking := missing(scenario):
        pytest.skip(f"{scenario}: {'; '.join(lacking)}")
    length = [] if seconds is None else ["--seconds", str(seconds)]
    done = gudgeon("chaos", scenario, "--json", *length, "--keep", folder / "kept", cwd=folder, timeout_s=380)
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert {n: result[n] for n in ("lost", "double", "disordered", "findings")} == dict.fromkeys(
        ("lost", "double", "disordered", "findings"), 0
    ), result
    assert result["delivered"] + result["shed"] + result["bulk_lost"] == result["produced"] > 0
    assert result["acknowledged"] > 0
    assert result["settled"]
    assert result["recovered_s"] is not None
    assert result["fault_began_at"] < result["fault_ended_at"] < result["ended_at"]
    assert result["fault"]["happened"]
    assert (done.returncode, result["passed"]) == (0, True), done.stderr
    return result


def in_namespaces(result: dict[str, Any]) -> bool:
    return str(result["mode"]).startswith("namespaces")


def test_every_scenario_has_its_test() -> None:
    tested = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")}
    assert set(SCENARIOS) <= tested


def test_link_loss(tmp_path: Path) -> None:
    fault = chaos("link-loss", tmp_path)["fault"]
    assert fault["rows_during"] == 0
    assert fault["produced_during"] > 0


def test_packet_loss(tmp_path: Path) -> None:
    result = chaos("packet-loss", tmp_path, 6)
    fault = result["fault"]
    if not in_namespaces(result):
        assert fault["stalled"] > 0
        return
    seen = fault["device_packets_seen"] + fault["cloud_packets_seen"]
    dropped = fault["device_packets_dropped"] + fault["cloud_packets_dropped"]
    assert 0.1 < dropped / seen < 0.55, "30 % of a few dozen packets"


def test_latency(tmp_path: Path) -> None:
    fault = chaos("latency", tmp_path, 9)["fault"]
    assert fault["delayed"] > 0
    assert fault["round_trip_s"] >= 4.0
    assert fault["rows_during"] > 0, "late is not never"


def test_slow_link(tmp_path: Path) -> None:
    result = chaos("slow-link", tmp_path, 8)
    fault = result["fault"]
    assert fault["device_overlimits" if in_namespaces(result) else "paced"] > 0
    assert fault["rows_during"] > 0, "slow is not never"


def test_one_way_partition(tmp_path: Path) -> None:
    result = chaos("one-way-partition", tmp_path, 12)
    names = ("cloud_packets_dropped", "device_packets_dropped") if in_namespaces(result) else ("held_up", "held_down")
    assert all(result["fault"][name] > 0 for name in names)


def test_broker_restart(tmp_path: Path) -> None:
    result = chaos("broker-restart", tmp_path, 5)
    assert result["fault"]["restarts"] >= 2


def test_kick_loop(tmp_path: Path) -> None:
    fault = chaos("kick-loop", tmp_path, 4)["fault"]
    assert fault["kicked"] >= 2


def test_tls_expiry(tmp_path: Path) -> None:
    fault = chaos("tls-expiry", tmp_path, 3)["fault"]
    assert fault["refused_by_the_device"]
    assert fault["rows_while_expired"] == 0
    assert fault["produced_while_expired"] > 0


def test_kill_process(tmp_path: Path) -> None:
    result = chaos("kill-process", tmp_path)
    assert all(result["fault"]["died_of_it"].values())
    assert set(result["fault"]["died_of_it"]) >= {"producer", "link", "cloud"}
    assert all(n >= 2 for name, n in result["process_starts"].items() if name in result["fault"]["died_of_it"])


def test_disk_full(tmp_path: Path) -> None:
    result = chaos("disk-full", tmp_path, 3)
    assert result["fault"]["ballast_bytes"] > 0
    assert 0 < result["fault"]["appends_refused"] <= result["refused"]
    assert result["bulk_lost"] == 0


def test_read_only(tmp_path: Path) -> None:
    fault = chaos("read-only", tmp_path, 2)["fault"]
    assert fault["kernel_refuses_writes"]
    assert fault["appends_refused"] > 0
    assert fault["refused_starts"] >= 2, "producer and link, each told it in one line"


def test_clock_jumps(tmp_path: Path) -> None:
    result = chaos("clock-jumps", tmp_path, 4)
    fault = result["fault"]
    years = {int(year) for year in fault["rows_by_year"]}
    assert 1970 in years
    assert len(years) == 4, "1970, last year, this year and next year, in rows of the cloud"
    assert fault["wrong_clock_reads"] > 0
    assert result["bulk_lost"] == result["refused"] == 0, "a wrong clock stops nothing"


def test_tls_in_1970(tmp_path: Path) -> None:
    fault = chaos("tls-in-1970", tmp_path, 3)["fault"]
    assert fault["rows_during"] > 0, "a certificate that is not valid yet by a wrong clock is no stop"


def test_slow_disk(tmp_path: Path) -> None:
    result = chaos("slow-disk", tmp_path, 4)
    assert result["fault"]["slow_flushes"] > 0
    assert result["refused"] == 0, "slow is not broken"
