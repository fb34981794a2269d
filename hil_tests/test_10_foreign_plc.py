"""The minimal `device.toml` of docs/reference/device.md, to the letter but for the PLC's port, which may be somebody's here: a
foreign Modbus PLC, a folder camera, a bundle, a broker. The PLC is a plain Modbus server that knows nothing of Gudgeon; its
program is this test."""

from __future__ import annotations

import json
import re
import sqlite3
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from edge_runtime.field.tests.modbus_server import Plc
from edge_runtime.tests.bundles import make_bundle, make_frame
from edge_runtime.tests.waiting import free_port
from hil_tests.bench import Registers, running, wait_for

DOCS = Path(__file__).resolve().parents[1] / "docs/reference/device.md"


def minimal_device_toml(port: int) -> str:
    found = re.search(r"```toml\n(.*?)```", DOCS.read_text(), re.S)
    assert found
    head, documented, rest = found.group(1).partition("port = 5020\n")
    assert documented
    assert "[plc]" in head
    return f"{head}port = {port}\n{rest}"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def place(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUDGEON_HOME", str(tmp_path / "home"))
    (tmp_path / "device.toml").write_text(minimal_device_toml(port))
    make_bundle(tmp_path / "bundle")
    (tmp_path / "images").mkdir()
    for i, defect in enumerate((False, True, False)):
        Image.fromarray(make_frame(defect, i)).save(tmp_path / "images" / f"{i}.png")
    return tmp_path


def answered(registers: Registers, seq: int) -> bool:
    return registers.read(100) == [seq]


def test_the_documented_file_runs_against_a_foreign_plc(place: Path, port: int) -> None:
    plc = Plc(dict.fromkeys(range(128), 0), dict.fromkeys(range(128), False))
    plc.start(port)
    registers = Registers(port)
    try:
        with running("run", "--config", "device.toml", cwd=place, log=place / "run.log"):
            results = []
            wait_for("the heartbeat", lambda: registers.read(103) != [0])
            for seq in (1, 2, 3, 4, 5):
                registers.write(1, [seq])
                wait_for(f"the answer to part {seq}", partial(answered, registers, seq))
                results.append(registers.read(101, 2))
        assert [result for result, _ in results] == [1, 2, 1, 1, 2]
        assert [score >= 500 for _, score in results] == [False, True, False, False, True]
    finally:
        registers.close()
        plc.stop()
    rows = sqlite3.connect(place / "state/outbox.db").execute("SELECT data FROM event_decision")
    waiting = [json.loads(data)["body"]["part_seq"] for (data,) in rows]
    assert waiting == [1, 2, 3, 4, 5] or waiting == [], "a broker on the documented port takes them, no cloud confirms"


def test_a_plc_that_starts_after_the_device_is_found(place: Path, port: int) -> None:
    plc = Plc(dict.fromkeys(range(128), 0), dict.fromkeys(range(128), False))
    log = place / "run.log"
    with running("run", "--config", "device.toml", cwd=place, log=log):
        wait_for("the device", lambda: "control runs" in log.read_text())
        plc.start(port)
        registers = Registers(port)
        wait_for("the heartbeat", lambda: registers.read(103) != [0])
        registers.write(1, [9])
        wait_for("the answer", lambda: registers.read(100) == [9])
    registers.close()
    plc.stop()
