"""The device.toml of docs/how-to/connect-sensors.md, to the letter but for the ports, against the simulated pump in a process of
its own: values, waves, dirty sensors and time-outs arrive as what they are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from edge_runtime.config import load_device
from edge_runtime.field.sections import EndpointSection, TagSection
from edge_runtime.field.source import ReportQueue
from edge_runtime.field.sources import make_sources
from edge_runtime.field.tag import Gap, Quality, Reason, Report, Sample, Wave

DOCS = Path(__file__).resolve().parents[1] / "docs"
HOW_TO = (DOCS / "how-to/connect-sensors.md").read_text(encoding="utf-8")
DEVICE, BROKER = re.findall(r"```toml\n(.*?)```", HOW_TO, re.DOTALL)
DIRT = """
[[dirt]]
kind = "drop_out"
tag = "bearing_temp"
at_s = 3
for_s = 2.5
every_s = 10
[[dirt]]
kind = "drift"
tag = "flow"
at_s = 3
for_s = 2.5
every_s = 10
size = 4000
[[dirt]]
kind = "time_out"
at_s = 7
for_s = 1.5
every_s = 10
"""


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[dict[str, int]]:
    (tmp_path / "dirt.toml").write_text(DIRT)
    (tmp_path / "pump.toml").write_text(
        'scenario = "dirt.toml"\n[modbus]\nport = 0\n[opcua]\nport = 0\n[stats]\nport = 0\n[pump]\ntag_period_ms = 100\n'
    )
    ready = tmp_path / "ready.json"
    args = ["sim", "pump", "--config", str(tmp_path / "pump.toml"), "--ready-file", str(ready)]
    process = subprocess.Popen([sys.executable, "-m", "edge_runtime.cli", *args], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield json.loads(ready.read_text())
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_the_how_to_reads_the_pump_with_its_dirt(tmp_path: Path, ports: dict[str, int]) -> None:
    text = DEVICE.replace("5030", str(ports["modbus_port"])).replace("4850", str(ports["opcua_port"]))
    (tmp_path / "device.toml").write_text(text)
    config = load_device(tmp_path / "device.toml")
    queue, told = ReportQueue(), list[Report]()
    sources = make_sources(config.endpoints, config.tags, queue.put, config.device.state_dir, config.device.id)
    for source in sources:
        source.start()

    def until(wanted: Callable[[Report], bool]) -> Report:
        deadline = time.monotonic() + 60
        while not (found := [r for r in told if wanted(r)]):
            assert time.monotonic() < deadline, (told[-20:], [s.health() for s in sources])
            told.extend(queue.take(0.1))
        return found[0]

    def sample(tag: str, quality: Quality, reason: Reason) -> Sample:
        found = until(lambda r: isinstance(r, Sample) and (r.tag, r.quality, r.reason) == (tag, quality, reason))
        assert isinstance(found, Sample)
        return found

    try:
        good = {
            t: sample(t, Quality.GOOD, Reason.NONE).value for t in ("flow", "bearing_temp", "operating_s", "vib_rms")
        }
        assert good["flow"] == pytest.approx(55, abs=10)
        assert good["bearing_temp"] == pytest.approx(53, abs=15)
        assert good["vib_rms"] == pytest.approx(0.08, abs=0.05)
        wave = until(lambda r: isinstance(r, Wave) and r.quality is Quality.GOOD)
        assert isinstance(wave, Wave)
        assert (len(wave.values), wave.rate_hz) == (2048, 12_800.0)
        assert 0.03 < max(wave.values) < 2
        assert sample("bearing_temp", Quality.UNCERTAIN, Reason.OUT_OF_RANGE).value == -3276.8
        sample("flow", Quality.UNCERTAIN, Reason.OUT_OF_RANGE)
        sample("flow", Quality.BAD, Reason.NO_ANSWER)
        sample("vib_rms", Quality.BAD, Reason.SOURCE_BAD)
        for tag in ("flow", "operating_s", "vib_rms"):
            until(lambda r, t=tag: isinstance(r, Gap) and r.tag == t)  # type: ignore[misc]
    finally:
        for source in sources:
            source.stop()


def test_the_broker_of_the_how_to_is_understood(tmp_path: Path) -> None:
    (tmp_path / "device.toml").write_text('[device]\nid = "d"\nstate_dir = "state"\n' + BROKER)
    config = load_device(tmp_path / "device.toml")
    assert config.endpoints[0].port_or_default == 8883
    assert config.tags[0].tag.path == "oil.pressure"


def test_every_key_and_every_reason_is_documented() -> None:
    page = (DOCS / "reference/device.md").read_text(encoding="utf-8").split("## Sensors")[1].split("\n## ")[0]
    endpoints, tags = page.split("`[[tags]]`, one table")
    for text, section in ((endpoints, EndpointSection), (tags, TagSection)):
        named = set(
            re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("|")))
        )
        assert named == {f.name for f in fields(section)}
    reasons = set(re.findall(r"^\| `([a-z ]+)` \| (?:bad|uncertain)", HOW_TO, re.MULTILINE))
    assert reasons == {r.value for r in Reason} - {""}
