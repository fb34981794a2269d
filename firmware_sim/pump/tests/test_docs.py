"""The reference page and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path

from firmware_sim.pump import config, dirt, tags

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "simulator-pump.md").read_text(encoding="utf-8")
DEFAULTS, SCENARIO = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def test_the_tables_are_those_of_the_code() -> None:
    assert tags.docs_table() in PAGE
    assert dirt.docs_table() in PAGE


def test_the_page_shows_every_default(tmp_path: Path) -> None:
    (tmp_path / "pump.toml").write_text(DEFAULTS)
    assert config.load(tmp_path / "pump.toml") == config.PumpConfig()
    for section, keys in (("pump", config.PumpSection), ("modbus", config.ModbusSection), ("rtu", config.RtuSection)):
        text = DEFAULTS.split(f"[{section}]")[1].split("\n[")[0]
        assert set(re.findall(r"^(?:# )?(\w+) =", text, re.MULTILINE)) == set(keys.__dataclass_fields__)


def test_the_scenario_of_the_page_is_one(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(SCENARIO)
    assert [d.kind for d in dirt.load(tmp_path / "s.toml")] == ["stuck", "time_out"]
