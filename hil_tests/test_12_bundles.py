"""More than one bundle on a running device: changeover by the PLC's recipe code, a shadow, and a later `gudgeon install`."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from PIL import Image

from edge_runtime.field.tests.modbus_server import Plc
from edge_runtime.tests.bundles import make_bundle, make_frame
from hil_tests.bench import Registers, gudgeon, running, wait_for
from tools.chaos.pair import free_port

DEVICE = """
[device]
id = "dev1"
state_dir = "state"
[plc]
port = {port}
[plc.map]
recipe = 5
[camera]
path = "images"
[bundle]
path = "default"
shadow = "strict"
[bundle.recipes]
7 = "strict"
[broker]
port = {broker}
"""
PASS, REJECT = 1, 2


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUDGEON_HOME", str(tmp_path / "home"))
    make_bundle(tmp_path / "default")
    make_bundle(tmp_path / "strict", seed=1, reject=0.0, review=0.0)
    (tmp_path / "images").mkdir()
    Image.fromarray(make_frame(False)).save(tmp_path / "images" / "sound.png")
    return tmp_path


def answer(registers: Registers, seq: int, recipe: int) -> int:
    registers.write(5, [recipe])
    registers.write(1, [seq])
    wait_for(f"the answer to part {seq}", lambda: registers.read(100) == [seq])
    return registers.read(101)[0]


def events(place: Path, stream: str) -> list[dict[str, object]]:
    rows = sqlite3.connect(place / "state/outbox.db").execute(f"SELECT data FROM event_{stream} ORDER BY seq")
    return [json.loads(data) for (data,) in rows]


def test_recipes_a_shadow_and_a_later_installation(place: Path) -> None:
    plc = Plc(dict.fromkeys(range(128), 0), dict.fromkeys(range(128), False))
    plc.start()
    (place / "device.toml").write_text(DEVICE.format(port=plc.port, broker=free_port()))
    registers = Registers(plc.port)
    with running("run", "--config", "device.toml", cwd=place, log=place / "run.log"):
        wait_for("the heartbeat", lambda: registers.read(103) != [0])
        assert [answer(registers, 1, 0), answer(registers, 2, 7), answer(registers, 3, 1)] == [PASS, REJECT, PASS]
        wait_for(
            "the shadow's word", lambda: [e for e in events(place, "metric") if e["kind"] == "shadow_disagreement"]
        )
    assert sorted(p.name for p in (place / "state/slots").iterdir()) == ["default", "recipe-7", "shadow"]

    installed = gudgeon("install", "strict", "--config", "device.toml", cwd=place)
    assert installed.returncode == 0, installed.stderr
    text = (place / "device.toml").read_text().replace('path = "default"\n', "")
    (place / "device.toml").write_text(text)
    with running("run", "--config", "device.toml", cwd=place, log=place / "run2.log"):
        assert answer(registers, 4, 0) == REJECT
    registers.close()
    plc.stop()
    digests = {e["body"]["bundle_digest"] for e in events(place, "decision")}  # type: ignore[index]
    assert len(digests) == 2
