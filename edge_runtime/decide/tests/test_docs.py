"""The pages print what the code does: the table of alarm states, every key of [[assets]], and configurations that load."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path

from edge_runtime import config
from edge_runtime.decide.alarm_states import MEANING, TABLE
from edge_runtime.decide.asset_config import AssetSection
from edge_runtime.decide.tag_rules import Rule

DOCS = Path(__file__).parents[3] / "docs"


def test_the_table_of_states_is_printed() -> None:
    page = (DOCS / "explain" / "alarms.md").read_text()
    rows = re.findall(r"^\| ([a-z]+) \| ([a-z ]+) \| ([a-z]+) \|$", page, re.MULTILINE)
    printed = [row for row in rows if row[0] != "state"]
    assert printed == [(before.value, event.value, after.value) for (before, event), after in TABLE.items()]
    for severity, meaning in MEANING.items():
        assert f"| {severity.name.lower()} | {meaning.removeprefix('act ')}" in page


def test_every_key_of_an_asset_is_named() -> None:
    section = (DOCS / "reference" / "device.md").read_text().partition("## Assets")[2].partition("\n## ")[0]
    names = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]+)`", section))))
    hints = {f.name: f for f in fields(AssetSection)}
    for name, field in hints.items():
        made = None if field.default_factory is None else getattr(field, "default_factory", None)
        nested = made if isinstance(made, type) and is_dataclass(made) else None
        assert name in names or name == "rules", name
        for inner in fields(nested) if nested else ():
            assert inner.name in names, f"{name}.{inner.name}"
    for rule in fields(Rule):
        assert rule.name in names, rule.name


def test_the_how_to_is_a_file_that_loads(tmp_path: Path) -> None:
    page = (DOCS / "how-to" / "watch-a-machine.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "device.toml"
    path.write_text(blocks[0] + blocks[1] + blocks[2])
    device = config.load_device(path)
    assert not device.has_line
    assert [rule.name for rule in device.assets[0].rules] == ["bearing-hot", "bearing-heats-up"]
    assert set(device.assets[0].slot_sets) == {"asset-pump-1-anomaly", "asset-pump-1-rul"}
